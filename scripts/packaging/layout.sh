# shellcheck shell=bash
# What an installation consists of, for scripts/install and scripts/package alike. Needs ROOT of scripts/lib.sh.

PROGRAMS=(oa-migrate oa-crawl oa-alert oa-backup oa-restore oa-report)
PACKAGING=$ROOT/scripts/packaging
MONITORING=$ROOT/scripts/monitoring

# What every unit may do, and nothing else. Programs of your own (oa-crawl exec) that need more get a drop-in: docs/install.md.
hardening() { # hardening USER GROUP
    cat <<END
User=$1
Group=$2
UMask=0077
Environment=OA_CONFIG=/etc/oa/oa.toml
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ReadWritePaths=-/var/lib/oa -/var/log/oa -/var/backups/oa
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
END
}

# Writes the units into a folder: a service and a timer for each line of `timers`, the page, and the stream of WAL and the listener, which nothing switches on by itself.
units() { # units FOLDER BIN USER GROUP
    local folder=$1 bin=$2 user=$3 group=$4 name calendar command sandbox
    mkdir -p "$folder"
    while IFS='|' read -r name calendar command; do
        name=${name//[][ ]/} calendar=$(xargs <<<"$calendar") command=$(xargs <<<"$command")
        [[ -n $name && $name != \#* ]] || continue
        # Chromium locks its pages into namespaces of their own.
        sandbox=$'RestrictNamespaces=yes\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged'
        [[ $name != crawl ]] || sandbox=$'RestrictNamespaces=user pid net\nSystemCallFilter=@system-service seccomp chroot'
        {
            printf '[Unit]\nDescription=%s\nDocumentation=man:%s(1)\nAfter=network-online.target postgresql.service\nWants=network-online.target\n\n' \
                "$command" "$(cut -d' ' -f1-2 <<<"$command" | tr ' ' -)"
            printf '[Service]\nType=oneshot\nExecStart=%s/%s\n' "$bin" "$command"
            hardening "$user" "$group"
            printf '%s\n' "$sandbox"
        } >"$folder/oa-$name.service"
        {
            printf '[Unit]\nDescription=Starts %s\n\n[Timer]\nOnCalendar=%s\nAccuracySec=1s\n' "$command" "$calendar"
            # A time that passed while the machine was off is made up for; what comes each hour comes anyway.
            [[ $calendar == "*-*-* *:"* ]] || printf 'Persistent=true\n'
            printf '\n[Install]\nWantedBy=timers.target\n'
        } >"$folder/oa-$name.timer"
    done <"$PACKAGING/timers"
    {
        printf '[Unit]\nDescription=Page, API and metrics of oa\nDocumentation=man:oa-report-serve(1)\nAfter=network-online.target postgresql.service\nWants=network-online.target\n\n'
        printf '[Service]\nExecStart=%s/oa-report serve -q\nRestart=always\nRestartSec=5s\n' "$bin"
        hardening "$user" "$group"
        printf 'RestrictNamespaces=yes\nMemoryDenyWriteExecute=yes\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n'
        printf '\n[Install]\nWantedBy=multi-user.target\n'
    } >"$folder/oa-report.service"
    {
        printf '[Unit]\nDescription=Receives the WAL of PostgreSQL all the time and stores it each minute\nDocumentation=man:oa-backup-stream(1)\nAfter=network-online.target postgresql.service\nWants=network-online.target\n\n'
        # What it was storing when it is stopped is stored by the next one.
        printf '[Service]\nExecStart=%s/oa-backup stream\nRestart=always\nRestartSec=10s\nKillMode=mixed\nTimeoutStopSec=30s\n' "$bin"
        hardening "$user" "$group"
        printf 'RestrictNamespaces=yes\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n'
        printf '\n[Install]\nWantedBy=multi-user.target\n'
    } >"$folder/oa-backup-stream.service"
    {
        printf '[Unit]\nDescription=Takes what is pressed on the messages of application robots\nDocumentation=man:oa-alert-listen(1)\nAfter=network-online.target postgresql.service\nWants=network-online.target\n\n'
        printf '[Service]\nExecStart=%s/oa-alert listen\nRestart=always\nRestartSec=5s\nTimeoutStopSec=15s\n' "$bin"
        # Started where there is nothing to listen for, it ends with 78, and is not started again and again.
        printf 'RestartPreventExitStatus=78\n'
        hardening "$user" "$group"
        printf 'RestrictNamespaces=yes\nMemoryDenyWriteExecute=yes\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n'
        printf '\n[Install]\nWantedBy=multi-user.target\n'
    } >"$folder/oa-alert-listen.service"
    chmod 0644 "$folder"/oa-*
}

# The lines of crontab.example as /etc/cron.d wants them: with an account.
cron_d() { # cron_d BIN USER
    sed -E -e "s|^PATH=.*|PATH=$1:/usr/bin:/bin|" \
        -e "1s|^.*|# Installed by oa-setup --timers cron. Take the # away to switch a line on.|" \
        -e "s|^(#? ?@reboot)[[:space:]]+|\\1 $2 |" \
        -e "s|^(#? ?[0-9*][^[:space:]]*([[:space:]]+[0-9*/,-]+){4})[[:space:]]+|\\1 $2 |" \
        "$ROOT/crontab.example"
}

logrotate_of() { # logrotate_of USER GROUP
    cat <<END
/var/log/oa/*.log {
    weekly
    rotate 8
    compress
    missingok
    notifempty
    # oa-report serve keeps its log open.
    copytruncate
    su $1 $2
}
END
}

# A file under its name at once: a program that is running cannot be written to, but its name can be given to another file.
put() { # put MODE SOURCE PLACE
    local new
    new=$(mktemp "$3.XXXXXX")
    install -m "$1" "$2" "$new"
    mv -f "$new" "$3"
}

# Programs, their pages and completions, units and examples, below DESTINATION/PREFIX.
lay_out() { # lay_out PROGRAMS_FOLDER DESTINATION PREFIX USER GROUP
    local from=$1 to=$2 prefix=$3 user=$4 group=$5 program name share=$2$3/share zsh
    # Where zsh looks, for packages and for what an administrator installs.
    zsh=$share/zsh/vendor-completions
    [[ $prefix == /usr ]] || zsh=$share/zsh/site-functions
    mkdir -p "$to$prefix/bin" "$to$prefix/sbin" "$zsh" "$share"/{man/man1,bash-completion/completions,fish/vendor_completions.d,oa}
    for program in "${PROGRAMS[@]}"; do
        put 0755 "$from/$program" "$to$prefix/bin/$program"
        "$from/$program" man --dir "$share/man/man1"
        "$from/$program" completions bash >"$share/bash-completion/completions/$program"
        "$from/$program" completions zsh >"$zsh/_$program"
        "$from/$program" completions fish >"$share/fish/vendor_completions.d/$program.fish"
    done
    gzip -9nf "$share"/man/man1/oa-*.1
    put 0755 "$PACKAGING/oa-setup" "$to$prefix/sbin/oa-setup"
    put 0644 "$ROOT/oa.example.toml" "$share/oa/oa.example.toml"
    put 0644 "$ROOT/crontab.example" "$share/oa/crontab.example"
    put 0644 "$PACKAGING/env.example" "$share/oa/env.example"
    for name in prometheus-rules.yml prometheus-rules-test.yml grafana-dashboard.json; do
        put 0644 "$MONITORING/$name" "$share/oa/$name"
    done
    cron_d "$prefix/bin" "$user" >"$share/oa/cron.d"
    # Not switched on: that is oa-setup's work.
    units "$to$prefix/lib/systemd/system" "$prefix/bin" "$user" "$group"
    chmod 0644 "$share"/man/man1/oa-* "$share"/bash-completion/completions/oa-* "$zsh"/_oa-* \
        "$share"/fish/vendor_completions.d/oa-* "$share"/oa/cron.d
}
