# shellcheck shell=bash
# Shared by the scripts of this folder: messages, what is missing, who runs a server.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT
# What scripts/setup --tests has put there.
TOOLS=$ROOT/target/tools/bin
export PATH=$PATH:$TOOLS

say() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }
note() { printf '%s\n' "$*" >&2; }
die() { # die CODE MESSAGE
    local code=$1
    shift
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit "$code"
}

# The folder with PostgreSQL's server programs: of version 15 if there are several, else of the newest; empty when there is none.
pg_bin() {
    local found version
    for found in /usr/lib/postgresql/15/bin $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(pg_config --bindir 2>/dev/null)"; do
        [[ -x $found/initdb && -x $found/postgres ]] || continue
        version=$("$found/postgres" --version) # postgres (PostgreSQL) 15.18 (Debian …)
        version=${version#*) }
        [[ ${version%%[!0-9]*} -ge 15 ]] || continue
        printf '%s\n' "$found"
        return
    done
}

# PostgreSQL refuses root: the account that runs a private server.
server_user() {
    if [[ $(id -u) != 0 ]]; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# Runs a command as that account.
as_server_user() {
    if [[ $(id -u) != 0 ]]; then
        "$@"
    else
        setpriv --reuid "$(server_user)" --regid "$(id -g "$(server_user)")" --clear-groups -- env HOME=/ "$@"
    fi
}

# A port of 127.0.0.1 that nobody listens on, from the given one upwards.
free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    printf '%s\n' "$port"
}
