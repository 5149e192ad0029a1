#!/usr/bin/env bash
# Writes both databases, the object store and the versions of the programs into a new folder:
#   ./backup.sh /srv/backup/monday
# Nothing writes meanwhile, so that databases and objects are of one moment: worker and servers are stopped, and started again
# at the end, whatever happens. Let runs end first: one that is under way is stopped, and the next one goes on from there.
# Redis is left out: it has messages on their way, and nothing that lasts.
set -euo pipefail
umask 077 # the dumps hold all that the servers know

[ $# -eq 1 ] || { echo "usage: ./backup.sh FOLDER" >&2; exit 2; }
target="$(realpath --canonicalize-missing "$1")"
[ ! -e "$target" ] || { echo "error: $target exists; name a folder that doesn't" >&2; exit 1; }
partial="$target.partial"
[ ! -e "$partial" ] || { echo "error: $partial exists, of a backup that runs or was cut off; remove it first" >&2; exit 1; }
mkdir -p "$partial"
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./versions.sh

again() {
  local code=$?
  rm -rf "$partial"
  docker compose up --detach --wait --no-recreate || { echo "error: the stack did not start again; see docker compose logs" >&2; exit 1; }
  exit "$code"
}
trap again EXIT

# As they are: files of a newer version, or another .env, must change nothing before there is a backup.
docker compose up --detach --wait --no-recreate postgres
{
  # Those that wrote the tables; the image may be newer than a container that runs.
  if docker compose exec -T mlflow true 2> /dev/null; then
    server_versions exec -T mlflow
  else
    server_versions run --rm --no-deps -T buckets
  fi
  postgres_version
} > "$partial/versions"
docker compose stop worker mlflow prefect-services prefect s3
for database in mlflow prefect; do
  docker compose exec -T postgres pg_dump --username=postgres --format=custom "$database" > "$partial/$database.dump"
done
docker compose run --rm --no-deps -T s3 tar -C /data -cf - . > "$partial/s3.tar"
(cd "$partial" && sha256sum mlflow.dump prefect.dump s3.tar versions > SHA256SUMS)
mv "$partial" "$target"
echo "wrote $target"
