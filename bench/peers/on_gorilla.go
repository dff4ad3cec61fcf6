// A recorder on Go and gorilla/websocket.
//
//	API_KEY=... on_gorilla PORT RECORDINGS_DIR
//
// As lean as it can be had: a goroutine a call, audio copied from the frame to the
// file's buffer, which is written each 9,600 bytes. It leaves out signatures,
// timers, gaps, a journal, audio on disk before `closed`, a WAV.
package main

import (
	"bufio"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

const writeBytes = 9600

var (
	uuid     = regexp.MustCompile(`^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
)

type message struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	Seq        int    `json:"seq"`
	Parameters struct {
		ConversationID string `json:"conversationId"`
		Participant    struct {
			ID string `json:"id"`
		} `json:"participant"`
		Media []json.RawMessage `json:"media"`
	} `json:"parameters"`
}

type answer struct {
	Version    string      `json:"version"`
	ID         string      `json:"id"`
	Type       string      `json:"type"`
	Seq        int         `json:"seq"`
	ClientSeq  int         `json:"clientseq"`
	Parameters interface{} `json:"parameters"`
}

type recorder struct {
	connection *websocket.Conn
	recordings string
	session    string
	seq        int
	file       *os.File
	audio      *bufio.Writer
}

func (r *recorder) open(m *message) error {
	conversation, participant := m.Parameters.ConversationID, m.Parameters.Participant.ID
	for _, id := range []string{m.ID, conversation, participant} {
		if !uuid.MatchString(id) {
			return errors.New("an id that is none")
		}
	}
	r.session = m.ID
	start := time.Now().UTC().Format("20060102T150405Z")
	name := fmt.Sprintf("%s_%s_%s", start, conversation, participant)
	folder := filepath.Join(r.recordings, "calls", name, "audio")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(
		filepath.Join(folder, m.ID+".raw"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	// Only as a writer: bufio would hand each frame on to a file itself.
	r.file, r.audio = file, bufio.NewWriterSize(struct{ io.Writer }{file}, writeBytes)
	return nil
}

func (r *recorder) answer(m *message, kind string, parameters interface{}) error {
	r.seq++
	return r.connection.WriteJSON(answer{"2", r.session, kind, r.seq, m.Seq, parameters})
}

func (r *recorder) takeText(from io.Reader) error {
	var m message
	if err := json.NewDecoder(from).Decode(&m); err != nil {
		return err
	}
	none := struct{}{}
	switch m.Type {
	case "ping":
		return r.answer(&m, "pong", none)
	case "open":
		if err := r.open(&m); err != nil {
			return err
		}
		media := map[string]interface{}{"media": m.Parameters.Media[:1]}
		return r.answer(&m, "opened", media)
	case "close":
		if err := r.finish(); err != nil {
			return err
		}
		return r.answer(&m, "closed", none)
	}
	return nil
}

func (r *recorder) finish() error {
	if r.file == nil {
		return nil
	}
	defer func() { r.file = nil }()
	if err := r.audio.Flush(); err != nil {
		return err
	}
	return r.file.Close()
}

func (r *recorder) converse() error {
	defer r.finish()
	for {
		kind, from, err := r.connection.NextReader()
		if err != nil {
			return err
		}
		if kind == websocket.BinaryMessage && r.audio != nil {
			_, err = r.audio.ReadFrom(from)
		} else {
			err = r.takeText(from)
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	port, recordings, key := os.Args[1], os.Args[2], []byte(os.Getenv("API_KEY"))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	handle := func(w http.ResponseWriter, request *http.Request) {
		given := []byte(request.Header.Get("X-API-KEY"))
		if subtle.ConstantTimeCompare(given, key) != 1 {
			http.Error(w, "", http.StatusUnauthorized)
			return
		}
		connection, err := upgrader.Upgrade(w, request, nil)
		if err != nil {
			return
		}
		defer connection.Close()
		r := recorder{connection: connection, recordings: recordings}
		r.converse()
	}
	err := http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(handle))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
