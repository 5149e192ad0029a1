#!/usr/bin/env bash
# Fills an empty stack with what backup.sh wrote, and starts it:
#   ./restore.sh /srv/backup/monday
# The passwords and keys are those of the present .env: a backup holds none. So this also moves a stack to another machine,
# or to a newer major version of PostgreSQL. Older programs than those of the backup are refused: none of them migrates back.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: ./restore.sh FOLDER" >&2; exit 2; }
source="$(realpath --canonicalize-missing "$1")"
(cd "$source" 2> /dev/null && sha256sum --quiet --check SHA256SUMS) \
  || { echo "error: $source is no whole backup; take another one" >&2; exit 1; }
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./versions.sh
# What compose calls the stack, by default as in compose.yaml. Under a wrong name, a full stack would look empty.
project="${COMPOSE_PROJECT_NAME:-}"
[ -n "$project" ] || [ ! -f .env ] || project="$(sed -n "s/^COMPOSE_PROJECT_NAME=//p" .env | tr -d "\"'" | tail -n 1)"
for volume in postgres-data redis-data s3-data; do
  if docker volume inspect "${project:-erv}_$volume" > /dev/null 2>&1; then
    echo "error: the stack has data; back it up, remove it (docker compose down --volumes), then try again" >&2
    exit 1
  fi
done

# refuse_older NAME VERSIONS ADVICE: ends if this stack, which has VERSIONS, has an older NAME than the backup. What was made to
# ask for them goes again, volumes included: there were none.
refuse_older() {
  local needs has
  needs="$(sed -n "s/^$1 //p" "$source/versions")"
  has="$(sed -n "s/^$1 //p" <<< "$2")"
  # Dumps of PostgreSQL fit all of its minor versions.
  [ "$1" != postgresql ] || { needs="${needs%%.*}" has="${has%%.*}"; }
  if [ "$(printf "%s\n" "$needs" "$has" | sort --version-sort | tail -n 1)" != "$has" ]; then
    docker compose down --volumes >&2
    echo "error: the backup is of $1 $needs, and this stack has $has, which can't read it; $3, then try again" >&2
    exit 1
  fi
}

if [ -f "$source/versions" ]; then
  servers="$(server_versions run --rm --no-deps -T buckets)"
  for name in mlflow prefect; do
    refuse_older "$name" "$servers" "take the files and images of that version or a newer one"
  done
else
  echo "note: the backup holds no versions, as those of older versions of backup.sh, so none are compared" >&2
fi

docker compose up --detach --wait postgres
if [ -f "$source/versions" ]; then
  refuse_older postgresql "$(postgres_version)" "set POSTGRES_IMAGE to that version or a newer one"
fi
for database in mlflow prefect; do
  docker compose exec -T postgres pg_restore --username=postgres --dbname="$database" \
    --clean --if-exists --exit-on-error --single-transaction < "$source/$database.dump"
done
docker compose run --rm --no-deps -T s3 tar -C /data -xf - < "$source/s3.tar"
docker compose up --detach --wait
