#!/usr/bin/env bash
# Fills an empty stack with what backup.sh wrote, and starts it:
#   ./restore.sh /srv/backup/monday
# The passwords and keys are those of the present .env: a backup holds none. So this also moves a stack to another machine,
# or to another major version of PostgreSQL.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: ./restore.sh FOLDER" >&2; exit 2; }
source="$(realpath --canonicalize-missing "$1")"
(cd "$source" 2> /dev/null && sha256sum --quiet --check SHA256SUMS) \
  || { echo "error: $source is no whole backup; take another one" >&2; exit 1; }
cd "$(dirname "${BASH_SOURCE[0]}")"
# What compose calls the stack, by default as in compose.yaml. Under a wrong name, a full stack would look empty.
project="${COMPOSE_PROJECT_NAME:-}"
[ -n "$project" ] || [ ! -f .env ] || project="$(sed -n "s/^COMPOSE_PROJECT_NAME=//p" .env | tr -d "\"'" | tail -n 1)"
for volume in postgres-data s3-data; do
  if docker volume inspect "${project:-erv}_$volume" > /dev/null 2>&1; then
    echo "error: the stack has data; back it up, remove it (docker compose down --volumes), then try again" >&2
    exit 1
  fi
done

docker compose up --detach --wait postgres
for database in mlflow prefect; do
  docker compose exec -T postgres pg_restore --username=postgres --dbname="$database" \
    --clean --if-exists --exit-on-error --single-transaction < "$source/$database.dump"
done
docker compose run --rm --no-deps -T s3 tar -C /data -xf - < "$source/s3.tar"
docker compose up --detach --wait
