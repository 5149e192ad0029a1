#!/bin/bash
# What the official image's entrypoint does with an empty volume: makes a cluster, then runs the init scripts against a
# server that answers on its socket only.
set -euo pipefail

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
    --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses=''" start
  export POSTGRES_USER=postgres
  for script in /docker-entrypoint-initdb.d/*; do
    [[ "$script" == *.sh ]] && if [ -x "$script" ]; then "$script"; else . "$script"; fi
  done
  pg_ctl --wait --mode=fast stop
fi
exec "$@" -c "listen_addresses=*"
