/* A plain C AudioHook recorder: what the work itself costs.
 *
 *     API_KEY=... plain --port 3000 --recordings DIR --interval 0.2 --write-every 2
 *     API_KEY=... plain --port 3000 --recordings DIR --epoll
 *
 * One thread, system calls, and nothing between. It does for each call what a
 * recorder cannot leave out: the RFC 6455 handshake, the key, `open`, `ping` and
 * `close`, frames unmasked, one file a call that is on disk before `closed` is
 * sent. It leaves out what a good one would not: timers, signatures, the times
 * of pauses, recovery after a crash, a WAV.
 *
 * --interval S     once a call is open its socket is read, without waiting, once
 *                  in S seconds, all calls in one pass: the floor for this work
 * --write-every N  a pass writes audio to the files only if it is the Nth
 * --epoll          a read for each readiness, and a write for each read
 *
 * Audio is stored as it came, in DIR/calls/START_CONVERSATION_PARTICIPANT/audio/.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SCRATCH_BYTES = 131072,
    FIRST_ROOM_BYTES = 4096,
    MAX_HEAD_BYTES = 16384,
    MAX_TEXT_BYTES = 65536,
    MAX_AUDIO_FRAME_BYTES = 1048576,
    MAX_CONTROL_BYTES = 125,
    MAX_HEADER_BYTES = 14,
    UUID_CHARS = 36,
    EVENTS = 1024,
    /* From so many calls on that end together, one syncfs is cheaper. */
    SYNCFS_FROM = 16,
};

enum opcode {
    CONTINUATION = 0,
    TEXT = 1,
    BINARY = 2,
    CLOSE = 8,
    PING = 9,
    PONG = 10,
};

enum phase {
    UPGRADING, /* the HTTP request is being read */
    OPENING,   /* frames, but no `opened` yet */
    RECORDING,
    CLOSING,   /* `close` has come, the file is not on disk yet */
    CLOSED,    /* `closed` is sent: the client closes the connection */
};

struct room {
    unsigned char *data;
    size_t used, size;
};

struct call {
    int fd, file;
    size_t index; /* in `calls` */
    enum phase phase;
    bool swept; /* read by the pass, not by epoll */

    /* The frame at hand. */
    unsigned char header[MAX_HEADER_BYTES];
    size_t header_used, header_size; /* size 0: not known yet */
    enum opcode opcode;
    bool final;
    unsigned char mask[4];
    unsigned mask_at;
    size_t remaining;
    enum opcode message; /* CONTINUATION: none is open */

    struct room audio;
    size_t whole_bytes; /* of `audio`: what belongs to finished messages */
    off_t written_bytes;
    struct room text;
    unsigned char control[MAX_CONTROL_BYTES];
    size_t control_used;

    char id[UUID_CHARS + 1];
    unsigned long seq, clientseq;
};

struct span {
    const char *at;
    size_t n;
};

static const char *recordings;
static const char *api_key;
static double interval; /* seconds; 0: epoll */
static unsigned long write_every = 1;
static int poller = -1, recordings_fd = -1;

static struct call **calls;
static size_t call_count, call_room;
static size_t swept_count, closing_count;
static unsigned long passes;
static unsigned char scratch[SCRATCH_BYTES];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Growing memory. */

static unsigned char *extend(struct room *room, size_t more)
{
    size_t size = room->size ? room->size : FIRST_ROOM_BYTES;
    unsigned char *at;
    while (size < room->used + more)
        size *= 2;
    if (size != room->size) {
        unsigned char *data = realloc(room->data, size);
        if (!data)
            die("realloc");
        room->data = data;
        room->size = size;
    }
    at = room->data + room->used;
    room->used += more;
    return at;
}

static void drop_front(struct room *room, size_t n)
{
    room->used -= n;
    if (room->used)
        memmove(room->data, room->data + n, room->used);
}

/* Text is rare, so that a call keeps no memory for it in between. */
static void discard(struct room *room)
{
    free(room->data);
    *room = (struct room){0};
}

/* SHA-1 (RFC 3174) and base64 (RFC 4648), for Sec-WebSocket-Accept. */

static uint32_t rotate(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t h[5], const unsigned char *block)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k, next;
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5A827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else
            f = b ^ c ^ d, k = 0xCA62C1D6;
        next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

static void sha1(const unsigned char *data, size_t n, unsigned char digest[20])
{
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char last[128] = {0};
    size_t rest = n % 64, size = rest < 56 ? 64 : 128;
    for (size_t i = 0; i + 64 <= n; i += 64)
        sha1_block(h, data + i);
    memcpy(last, data + n - rest, rest);
    last[rest] = 0x80;
    for (size_t i = 0; i < 8; i++)
        last[size - 1 - i] = (unsigned char)((uint64_t)n * 8 >> (8 * i));
    for (size_t i = 0; i < size; i += 64)
        sha1_block(h, last + i);
    for (int i = 0; i < 20; i++)
        digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const unsigned char *data, size_t n, char *out)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        size_t have = n - i < 3 ? n - i : 3;
        uint32_t v = (uint32_t)data[i] << 16;
        if (have > 1)
            v |= (uint32_t)data[i + 1] << 8;
        if (have > 2)
            v |= data[i + 2];
        *out++ = letters[v >> 18];
        *out++ = letters[v >> 12 & 63];
        *out++ = have > 1 ? letters[v >> 6 & 63] : '=';
        *out++ = have > 2 ? letters[v & 63] : '=';
    }
    *out = 0;
}

/* JSON, as far as finding members goes. A span without `at` means: not there. */

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && strchr(" \t\r\n", *p) && *p)
        p++;
    return p;
}

static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p < end ? p + 1 : end;
}

static const char *skip_value(const char *p, const char *end)
{
    int depth = 0;
    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
        } else if (*p == '{' || *p == '[') {
            depth++, p++;
        } else if (*p == '}' || *p == ']') {
            if (!depth)
                break;
            depth--, p++;
        } else if (*p == ',' && !depth) {
            break;
        } else {
            p++;
            continue; /* a literal goes on */
        }
        if (!depth)
            break;
    }
    return p;
}

static struct span member(struct span object, const char *key)
{
    const char *p = object.at, *end = object.at + object.n;
    if (!p || p == end || *p != '{')
        return (struct span){0};
    p = skip_space(p + 1, end);
    while (p < end && *p == '"') {
        const char *name = p + 1, *after = skip_string(p, end), *value;
        p = skip_space(after, end);
        if (p == end || *p != ':')
            break;
        value = skip_space(p + 1, end);
        p = skip_value(value, end);
        if (after > name && (size_t)(after - 1 - name) == strlen(key) &&
            !memcmp(name, key, strlen(key)))
            return (struct span){value, (size_t)(p - value)};
        p = skip_space(p, end);
        if (p < end && *p == ',')
            p = skip_space(p + 1, end);
    }
    return (struct span){0};
}

static struct span first_element(struct span list)
{
    const char *p = list.at, *end = list.at + list.n;
    if (!p || p == end || *p != '[')
        return (struct span){0};
    p = skip_space(p + 1, end);
    return (struct span){p, (size_t)(skip_value(p, end) - p)};
}

static bool is_string(struct span value, const char *text)
{
    size_t n = strlen(text);
    return value.n == n + 2 && value.at[0] == '"' && !memcmp(value.at + 1, text, n);
}

static unsigned long number(struct span value)
{
    unsigned long n = 0;
    for (size_t i = 0; i < value.n && isdigit((unsigned char)value.at[i]); i++)
        n = n * 10 + (unsigned long)(value.at[i] - '0');
    return n;
}

/* These become part of a path, so nothing but a UUID will do. */
static bool copy_uuid(struct span value, char out[UUID_CHARS + 1])
{
    if (value.n != UUID_CHARS + 2 || value.at[0] != '"')
        return false;
    for (size_t i = 0; i < UUID_CHARS; i++) {
        unsigned char c = (unsigned char)value.at[i + 1];
        if (!isxdigit(c) && c != '-')
            return false;
        out[i] = (char)c;
    }
    out[UUID_CHARS] = 0;
    return true;
}

/* Sending. A peer that does not take a short answer at once is given up. */

static bool send_whole(struct call *call, const void *data, size_t n)
{
    return send(call->fd, data, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool send_frame(struct call *call, enum opcode opcode, const void *data, size_t n)
{
    unsigned char frame[4 + 4096];
    size_t header = n < 126 ? 2 : 4;
    if (n > sizeof frame - 4)
        return false;
    frame[0] = 0x80 | (unsigned char)opcode;
    frame[1] = n < 126 ? (unsigned char)n : 126;
    if (header == 4)
        frame[2] = (unsigned char)(n >> 8), frame[3] = (unsigned char)n;
    memcpy(frame + header, data, n);
    return send_whole(call, frame, header + n);
}

static bool send_message(struct call *call, const char *type, struct span media)
{
    char text[4096];
    int n = snprintf(text, sizeof text,
                     "{\"version\":\"2\",\"id\":\"%s\",\"type\":\"%s\",\"seq\":%lu,"
                     "\"clientseq\":%lu,\"parameters\":{%s%.*s%s}}",
                     call->id, type, ++call->seq, call->clientseq,
                     media.at ? "\"media\":[" : "", (int)media.n,
                     media.at ? media.at : "", media.at ? "]" : "");
    return n > 0 && (size_t)n < sizeof text && send_frame(call, TEXT, text, (size_t)n);
}

/* The file. */

static bool create_file(struct call *call, struct span parameters)
{
    char conversation[UUID_CHARS + 1], participant[UUID_CHARS + 1], started[32];
    char path[4096];
    time_t now = time(NULL);
    struct tm utc;
    int n;
    if (!copy_uuid(member(parameters, "conversationId"), conversation) ||
        !copy_uuid(member(member(parameters, "participant"), "id"), participant))
        return false;
    gmtime_r(&now, &utc);
    strftime(started, sizeof started, "%Y%m%dT%H%M%SZ", &utc);
    n = snprintf(path, sizeof path, "%s/calls/%s_%s_%s", recordings, started,
                 conversation, participant);
    if (n < 0 || (size_t)n > sizeof path - 64)
        return false;
    if (mkdir(path, 0700) < 0)
        return false;
    memcpy(path + n, "/audio", 7);
    if (mkdir(path, 0700) < 0)
        return false;
    snprintf(path + n + 6, sizeof path - (size_t)n - 6, "/%s.raw", call->id);
    call->file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return call->file >= 0;
}

static bool write_out(struct call *call)
{
    size_t done = 0;
    while (done < call->whole_bytes) {
        ssize_t n = pwrite(call->file, call->audio.data + done, call->whole_bytes - done,
                           call->written_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            perror("pwrite");
            return false;
        }
        done += (size_t)n;
        call->written_bytes += n;
    }
    drop_front(&call->audio, done);
    call->whole_bytes = 0;
    return true;
}

static void drop(struct call *call)
{
    struct call *last = calls[--call_count];
    calls[call->index] = last;
    last->index = call->index;
    if (call->swept)
        swept_count--;
    if (call->phase == CLOSING)
        closing_count--;
    if (call->file >= 0) {
        /* A call that was cut off keeps what came; both are no-ops after `close`. */
        write_out(call);
        if (call->phase == RECORDING)
            fdatasync(call->file);
        close(call->file);
    }
    close(call->fd);
    free(call->audio.data);
    free(call->text.data);
    free(call);
}

/* Text messages. */

static bool take_open(struct call *call, struct span message)
{
    struct span parameters = member(message, "parameters");
    struct span media = first_element(member(parameters, "media"));
    if (call->phase != OPENING || !media.n || !copy_uuid(member(message, "id"), call->id) ||
        !create_file(call, parameters) || !send_message(call, "opened", media))
        return false;
    call->phase = RECORDING;
    if (interval > 0) {
        epoll_ctl(poller, EPOLL_CTL_DEL, call->fd, NULL);
        call->swept = true;
        swept_count++;
    }
    return true;
}

static bool take_text(struct call *call)
{
    struct span message = {(const char *)call->text.data, call->text.used}, type;
    bool good = true;
    message.at = skip_space(message.at, message.at + message.n);
    message.n = call->text.used - (size_t)(message.at - (const char *)call->text.data);
    type = member(message, "type");
    call->clientseq = number(member(message, "seq"));
    if (is_string(type, "ping") && call->phase == RECORDING) {
        good = send_message(call, "pong", (struct span){0});
    } else if (is_string(type, "open")) {
        good = take_open(call, message);
    } else if (is_string(type, "close") && call->phase == RECORDING) {
        /* Answered by `settle`, with all that end at this moment. */
        call->phase = CLOSING;
        closing_count++;
    }
    discard(&call->text);
    return good;
}

static void settle(void)
{
    bool together = closing_count >= SYNCFS_FROM, synced = false;
    for (size_t i = call_count; closing_count && i-- > 0;)
        if (calls[i]->phase == CLOSING && !write_out(calls[i]))
            drop(calls[i]);
    if (together)
        synced = syncfs(recordings_fd) == 0;
    for (size_t i = call_count; closing_count && i-- > 0;) {
        struct call *call = calls[i];
        if (call->phase != CLOSING)
            continue;
        if ((synced || fdatasync(call->file) == 0) &&
            send_message(call, "closed", (struct span){0})) {
            call->phase = CLOSED;
            closing_count--;
        } else {
            perror("close");
            drop(call);
        }
    }
}

/* Frames, RFC 6455 section 5. */

/* Eight bytes a step: the compiler makes vector instructions of this loop. */
static void unmask(unsigned char *dst, const unsigned char *src, size_t n,
                   const unsigned char *mask, unsigned phase)
{
    unsigned char m[8];
    uint64_t key, word;
    size_t i;
    for (i = 0; i < 8; i++)
        m[i] = mask[(phase + i) & 3];
    memcpy(&key, m, 8);
    for (i = 0; i + 8 <= n; i += 8) {
        memcpy(&word, src + i, 8);
        word ^= key;
        memcpy(dst + i, &word, 8);
    }
    for (; i < n; i++)
        dst[i] = src[i] ^ m[i & 7];
}

/* Judges a whole header; false if it is not right. */
static bool begin_frame(struct call *call)
{
    const unsigned char *h = call->header;
    size_t extra = call->header_size - 6, length = h[1] & 0x7F;
    enum opcode opcode = h[0] & 0x0F;
    if (extra) {
        length = 0;
        for (size_t i = 0; i < extra; i++)
            length = length << 8 | h[2 + i];
    }
    call->opcode = opcode;
    call->final = h[0] & 0x80;
    call->remaining = length;
    call->mask_at = 0;
    memcpy(call->mask, h + 2 + extra, 4);
    if (h[0] & 0x70 || !(h[1] & 0x80))
        return false;
    switch (opcode) {
    case CLOSE:
    case PING:
    case PONG:
        call->control_used = 0;
        return call->final && length <= MAX_CONTROL_BYTES;
    case CONTINUATION:
        if (call->message == CONTINUATION)
            return false;
        break;
    case TEXT:
    case BINARY:
        if (call->message != CONTINUATION)
            return false;
        call->message = opcode;
        break;
    default:
        return false;
    }
    if (call->message == TEXT)
        return length <= MAX_TEXT_BYTES - call->text.used;
    return length <= MAX_AUDIO_FRAME_BYTES;
}

static bool end_frame(struct call *call)
{
    enum opcode message = call->message;
    call->header_used = call->header_size = 0;
    switch (call->opcode) {
    case CLOSE:
        /* Its own code back, and this was all (RFC 6455, 5.5.1). */
        send_frame(call, CLOSE, call->control, call->control_used < 2 ? 0 : 2);
        return false;
    case PING:
        return send_frame(call, PONG, call->control, call->control_used);
    case PONG:
        return true;
    default:
        break;
    }
    if (!call->final)
        return true;
    call->message = CONTINUATION;
    if (message == TEXT)
        return take_text(call);
    if (call->phase == RECORDING)
        call->whole_bytes = call->audio.used;
    else
        call->audio.used = call->whole_bytes; /* nobody wants it */
    return true;
}

/* Takes bytes off the stream; false if the connection is over. */
static bool take_frames(struct call *call, const unsigned char *data, size_t n)
{
    while (n) {
        size_t step;
        if (!call->header_size || call->header_used < call->header_size) {
            /* Two bytes say how many there are. */
            size_t wanted = call->header_size ? call->header_size : 2;
            step = wanted - call->header_used;
            if (step > n)
                step = n;
            memcpy(call->header + call->header_used, data, step);
            call->header_used += step;
            if (call->header_used == 2) {
                unsigned length = call->header[1] & 0x7F;
                call->header_size = 6 + (length == 126 ? 2 : length == 127 ? 8 : 0);
            } else if (call->header_used == call->header_size) {
                if (!begin_frame(call) || (!call->remaining && !end_frame(call)))
                    return false;
            }
        } else {
            unsigned char *to;
            step = call->remaining < n ? call->remaining : n;
            if (call->opcode >= CLOSE) {
                to = call->control + call->control_used;
                call->control_used += step;
            } else {
                to = extend(call->message == TEXT ? &call->text : &call->audio, step);
            }
            unmask(to, data, step, call->mask, call->mask_at);
            call->mask_at = (call->mask_at + (unsigned)step) & 3;
            call->remaining -= step;
            if (!call->remaining && !end_frame(call))
                return false;
        }
        data += step;
        n -= step;
    }
    return true;
}

/* The HTTP request. */

static struct span header(struct span head, const char *name)
{
    const char *p = head.at, *end = head.at + head.n;
    size_t n = strlen(name);
    while ((p = memmem(p, (size_t)(end - p), "\r\n", 2))) {
        p += 2;
        if ((size_t)(end - p) > n && !strncasecmp(p, name, n) && p[n] == ':') {
            const char *value = p + n + 1;
            const char *stop = memmem(value, (size_t)(end - value), "\r\n", 2);
            while (value < stop && (*value == ' ' || *value == '\t'))
                value++;
            while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
                stop--;
            return (struct span){value, (size_t)(stop - value)};
        }
    }
    return (struct span){0};
}

/* Takes as long whatever the first byte is that differs. */
static bool is_key(struct span value)
{
    size_t n = strlen(api_key);
    unsigned char difference = 0;
    if (value.n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        difference |= (unsigned char)(value.at[i] ^ api_key[i]);
    return !difference;
}

static bool answer(struct call *call, const char *status)
{
    char text[256];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                     status);
    send_whole(call, text, (size_t)n);
    return false;
}

/* Answers a request whose head is there; false if that was all. */
static bool upgrade(struct call *call, struct span head)
{
    static const char suffix[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    struct span key = header(head, "Sec-WebSocket-Key");
    struct span to = header(head, "Upgrade");
    unsigned char joined[64 + sizeof suffix], digest[20];
    char accepted[32], text[256];
    int n;
    if (head.n > 12 && !memcmp(head.at, "GET /health ", 12))
        return answer(call, "200 OK");
    if (memcmp(head.at, "GET ", 4) || to.n != 9 || strncasecmp(to.at, "websocket", 9) ||
        !key.n || key.n > 64)
        return answer(call, "426 Upgrade Required");
    if (*api_key && !is_key(header(head, "X-API-KEY")))
        return answer(call, "401 Unauthorized");
    memcpy(joined, key.at, key.n);
    memcpy(joined + key.n, suffix, sizeof suffix - 1);
    sha1(joined, key.n + sizeof suffix - 1, digest);
    base64(digest, sizeof digest, accepted);
    n = snprintf(text, sizeof text,
                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                 "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                 accepted);
    return send_whole(call, text, (size_t)n);
}

static bool take_head(struct call *call, const unsigned char *data, size_t n)
{
    const char *end;
    struct room held;
    size_t head;
    bool good;
    memcpy(extend(&call->text, n), data, n);
    end = memmem(call->text.data, call->text.used, "\r\n\r\n", 4);
    if (!end)
        return call->text.used < MAX_HEAD_BYTES;
    held = call->text;
    call->text = (struct room){0};
    head = (size_t)(end - (const char *)held.data) + 4;
    good = upgrade(call, (struct span){(const char *)held.data, head});
    if (good) {
        call->phase = OPENING;
        good = take_frames(call, held.data + head, held.used - head);
    }
    discard(&held);
    return good;
}

/* Reading. */

/* Reads once, or until nothing is left; false if the connection is over. */
static bool receive(struct call *call)
{
    for (;;) {
        ssize_t n = recv(call->fd, scratch, sizeof scratch, MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (n == 0)
            return false;
        if (!(call->phase == UPGRADING ? take_head : take_frames)(call, scratch, (size_t)n))
            return false;
        if ((size_t)n < sizeof scratch || !call->swept)
            return true;
    }
}

/* Backwards, since a call that ends gives its place to the last. */
static void sweep(void)
{
    bool write = ++passes % write_every == 0;
    for (size_t i = call_count; i-- > 0;) {
        struct call *call = calls[i];
        if (call->swept && (!receive(call) || (write && !write_out(call))))
            drop(call);
    }
}

static void take_readiness(struct call *call)
{
    bool good = receive(call);
    if (good && call->file >= 0 && !call->swept)
        good = write_out(call);
    if (!good)
        drop(call);
}

static void accept_all(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct call *call = calloc(1, sizeof *call);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = call};
        if (call_count == call_room) {
            call_room = call_room ? 2 * call_room : 64;
            calls = realloc(calls, call_room * sizeof *calls);
        }
        if (!call || !calls)
            die("out of memory");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        call->fd = fd;
        call->file = -1;
        call->index = call_count;
        calls[call_count++] = call;
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
            drop(call);
    }
    if (errno == EMFILE || errno == ENFILE)
        die("accept4");
}

/* The loop. */

static int start_listening(unsigned port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* Several of us can share the port, where one may not have files enough. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
        die("listen");
    return fd;
}

/* SIGTERM and SIGINT as a file that can be polled. */
static int watch_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void run(int listener, int signals)
{
    struct epoll_event events[EVENTS];
    struct epoll_event ours[2] = {
        {.events = EPOLLIN, .data.ptr = &ours[0]},
        {.events = EPOLLIN, .data.ptr = &ours[1]},
    };
    double due = 0;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &ours[0]) < 0 ||
        epoll_ctl(poller, EPOLL_CTL_ADD, signals, &ours[1]) < 0)
        die("epoll_ctl");
    for (;;) {
        double left = due - now_seconds();
        int wait = !swept_count ? -1 : left > 0 ? (int)(left * 1000) + 1 : 0;
        int n = epoll_wait(poller, events, EVENTS, wait);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &ours[0])
                accept_all(listener);
            else if (events[i].data.ptr == &ours[1])
                return;
            else
                take_readiness(events[i].data.ptr);
        }
        if (swept_count) {
            double now = now_seconds();
            if (now >= due) {
                sweep();
                due = due + interval > now ? due + interval : now + interval;
            }
        }
        if (closing_count)
            settle();
    }
}

static void allow_many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: plain --port PORT --recordings DIR"
                    " (--interval SECONDS [--write-every N] | --epoll)\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"recordings", required_argument, NULL, 'r'},
        {"interval", required_argument, NULL, 'i'},
        {"write-every", required_argument, NULL, 'w'},
        {"epoll", no_argument, NULL, 'e'},
        {0},
    };
    unsigned long port = 0;
    bool epoll = false;
    char path[4096];
    int option, listener, signals;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            port = strtoul(optarg, NULL, 10);
            break;
        case 'r':
            recordings = optarg;
            break;
        case 'i':
            interval = strtod(optarg, NULL);
            break;
        case 'w':
            write_every = strtoul(optarg, NULL, 10);
            break;
        case 'e':
            epoll = true;
            break;
        default:
            usage();
        }
    }
    if (!port || port > 65535 || !recordings || epoll == (interval > 0) || !write_every ||
        (epoll && write_every > 1))
        usage();
    api_key = getenv("API_KEY");
    if (!api_key)
        api_key = "";
    if (snprintf(path, sizeof path, "%s/calls", recordings) >= (int)sizeof path)
        usage();
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        die(path);
    recordings_fd = open(recordings, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    poller = epoll_create1(EPOLL_CLOEXEC);
    signals = watch_signals();
    if (recordings_fd < 0 || poller < 0 || signals < 0)
        die(recordings);
    allow_many_files();
    listener = start_listening((unsigned)port);
    run(listener, signals);
    close(listener);
    while (call_count)
        drop(calls[call_count - 1]);
    return 0;
}
