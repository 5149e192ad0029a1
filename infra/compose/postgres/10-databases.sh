#!/usr/bin/env bash
# One database and one role per service. PostgreSQL's image runs this once, when its volume is still empty.
set -euo pipefail

# psql quotes the values itself (:'name', :"name"), so that a password may hold any character here. It reads the password from
# its environment: its arguments are in the list of processes.
create_database() {
  local name="$1" password="$2"
  ROLE_PASSWORD="$password" psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" <<'SQL'
\getenv password ROLE_PASSWORD
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
}

create_database mlflow "$MLFLOW_DB_PASSWORD"
create_database prefect "$PREFECT_DB_PASSWORD"

# Prefect searches names by trigram; the owner of a database may not create the extension on every PostgreSQL.
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname prefect \
  --command 'CREATE EXTENSION IF NOT EXISTS pg_trgm'
