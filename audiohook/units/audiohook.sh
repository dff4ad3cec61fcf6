#!/bin/sh
# Any command of audiohook with all that the service has: its settings and secrets,
# its user, its folder. `sudo audiohook check`, `sudo audiohook audit --day 2026-11-24`.
# Files that are named to it are read as that user, from that folder.

if [ -t 0 ] && [ -t 1 ]; then terminal=--pty; else terminal=--pipe; fi
exec systemd-run --quiet --wait --collect --service-type=exec "$terminal" \
    --uid=audiohook --gid=audiohook \
    --property=StateDirectory=audiohook \
    --property=StateDirectoryMode=0700 \
    --property=WorkingDirectory=/var/lib/audiohook \
    --setenv=RECORDINGS_DIR=/var/lib/audiohook \
    --setenv=AUDIOHOOK_ENV_FILE=/etc/audiohook/audiohook.env \
    --property=UMask=0077 \
    --property=LimitNOFILE=131072 \
    --property=LimitCORE=0 \
    --property=NoNewPrivileges=yes \
    --property=ProtectSystem=strict \
    --property=LoadCredential=API_KEY:audiohook.API_KEY \
    --property=LoadCredential=CLIENT_SECRET:audiohook.CLIENT_SECRET \
    --property=LoadCredential=API_KEYS_FILE:audiohook.API_KEYS_FILE \
    --property=LoadCredential=AWS_ACCESS_KEY_ID:audiohook.AWS_ACCESS_KEY_ID \
    --property=LoadCredential=AWS_SECRET_ACCESS_KEY:audiohook.AWS_SECRET_ACCESS_KEY \
    --property=LoadCredential=ASSEMBLYAI_API_KEY:audiohook.ASSEMBLYAI_API_KEY \
    --property=LoadCredential=WEBHOOK_SECRET:audiohook.WEBHOOK_SECRET \
    --property=LoadCredential=WEBHOOK_URL:audiohook.WEBHOOK_URL \
    --property=LoadCredential=NOTIFY_SECRET:audiohook.NOTIFY_SECRET \
    --property=LoadCredential=NOTIFY_URL:audiohook.NOTIFY_URL \
    --property=LoadCredential=ADMIN_PASSWORD:audiohook.ADMIN_PASSWORD \
    --property=LoadCredential=API_TOKENS_FILE:audiohook.API_TOKENS_FILE \
    --property=LoadCredential=TLS_CERTIFICATE:audiohook.TLS_CERTIFICATE \
    --property=LoadCredential=TLS_KEY:audiohook.TLS_KEY \
    -- /opt/audiohook/bin/audiohook "$@"
