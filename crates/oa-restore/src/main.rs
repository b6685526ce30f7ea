//! `oa-restore`: command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use oa_backup::progress;
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::config::BackupKind;
use oa_core::exit;
use oa_core::output::Format;
use oa_core::runs::Trigger;
use oa_core::supervise;
use oa_restore::PROGRAM;
use oa_restore::commands::{cluster, database, drill, files, plan, table};
use oa_restore::session::Asked;

/// Restores clusters, databases, tables and files as they were at any moment
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum KindArg {
    /// Physical where that leads there, else the newest dump before
    #[default]
    Auto,
    /// From the cluster's files and its log: exactly
    Physical,
    /// From a dump
    Logical,
}

const TO_HELP: &str =
    "The moment: a time, \"2h ago\", name:POINT, a place in the log, a backup's id, or latest";

#[derive(Debug, Args)]
struct From {
    #[arg(long, value_name = "MOMENT", help = TO_HELP, long_help = "The moment that is restored:\n  \"2026-11-23 14:05\"          a time in the zone of the configuration; seconds and a zone may follow\n  2026-11-23T14:05:00+08:00   the same in RFC 3339\n  \"2h ago\"                    that long before now\n  name:POINT                  a point made with pg_create_restore_point\n  16/B374D848                 a place in the log: what was written before it\n  3f2a9c81                    what that backup holds\n  latest                      everything that is backed up")]
    to: String,
    /// Out of the second repository, of [backup.copy]
    #[arg(long)]
    from_copy: bool,
    /// From which kind of backup
    #[arg(long, value_enum, default_value_t)]
    kind: KindArg,
}

impl From {
    fn asked(&self) -> Asked {
        Asked {
            to: self.to.clone(),
            from_copy: self.from_copy,
            kind: match self.kind {
                KindArg::Auto => BackupKind::Auto,
                KindArg::Physical => BackupKind::Physical,
                KindArg::Logical => BackupKind::Logical,
            },
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which backups and which log a restore would use, and what would be lost
    #[command(
        after_help = "PostgreSQL need not run. Nothing is done.\n\nExamples:\n  oa-restore plan --to latest\n  oa-restore plan --to \"2026-11-23 14:05\"\n  oa-restore plan --to \"2h ago\" --format json | jq .lost_seconds"
    )]
    Plan {
        #[command(flatten)]
        from: From,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Restore a whole cluster into a directory, recovered and ready to run
    #[command(
        after_help = "PostgreSQL need not run. Interrupted, the same command goes on where it was.\n\nExamples:\n  oa-restore cluster --to latest --target-dir /var/lib/postgresql/restored\n  oa-restore cluster --to \"2026-11-23 14:05\" --target-dir /srv/restored --start\n  oa-restore cluster --to latest --target-dir /srv/restored --dry-run"
    )]
    Cluster {
        #[command(flatten)]
        from: From,
        /// The data directory: absent or empty
        #[arg(long, value_name = "DIR")]
        target_dir: PathBuf,
        /// Start the server there
        #[arg(long)]
        start: bool,
        /// Its port on 127.0.0.1 [default: the first free one from 5432 on]
        #[arg(long)]
        port: Option<u16>,
        /// Whose it will be, when oa-restore runs as root
        #[arg(long, value_name = "USER", default_value = "postgres")]
        owner: String,
        /// Move aside what is in the directory
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Restore the database beside the live one, and with --swap into its place
    #[command(
        after_help = "It is compared before it may be used. With --swap the live one is renamed and kept until you drop it.\n\nExamples:\n  oa-restore database --to \"2026-11-23 14:05\" --into oa_1405\n  oa-restore database --to latest --into oa_new --swap --yes"
    )]
    Database {
        #[command(flatten)]
        from: From,
        /// The new database's name
        #[arg(long, value_name = "NAME")]
        into: String,
        /// Then let it change names with the live one, which is kept
        #[arg(long)]
        swap: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Bring tables, or some of their rows, back into the live database
    #[command(
        after_help = "A table that is there is replaced in one short step and kept as NAME_before_TIME. With --where rows go back by primary key, and the versions that they replace are kept beside.\n\nExamples:\n  oa-restore table option_contracts --to \"2026-11-23 14:05\" --as option_contracts_1405\n  oa-restore table option_contracts --to \"10min ago\"\n  oa-restore table option_contracts --to latest --where \"symbol = 'IO2612'\"\n  oa-restore table one two --to 3f2a9c81 --yes"
    )]
    Table {
        /// The tables, with a schema where it is not public
        #[arg(required = true, value_name = "NAME")]
        tables: Vec<String>,
        #[command(flatten)]
        from: From,
        /// Under this name, beside the one that is there
        #[arg(long = "as", value_name = "NEW")]
        new_name: Option<String>,
        /// Only the rows for which this is true
        #[arg(long = "where", value_name = "SQL")]
        condition: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Restore files that were backed up along with the database
    #[command(
        after_help = "They go below the directory with their whole path. PostgreSQL need not run.\n\nExamples:\n  oa-restore files --to latest --target-dir /srv/restored-files\n  oa-restore files /etc/oa --to \"2026-11-23 14:05\" --target-dir /srv/restored-files"
    )]
    Files {
        /// Only these [default: all]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        from: From,
        /// Where they go: absent or empty
        #[arg(long, value_name = "DIR")]
        target_dir: PathBuf,
        /// Move aside what is in the directory
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Rehearse: restore a backup into a private server, check it, compare it, measure it
    #[command(
        after_help = "Touches nothing but the staging folder. Exit code 1 when something is wrong.\n\nExamples:\n  oa-restore drill --yes\n  oa-restore drill --random --yes --format json | jq .rto_seconds\nFor crontab, monthly:\n  0 5 1 * * oa-restore drill --cron"
    )]
    Drill {
        /// Any backup by chance, instead of the newest
        #[arg(long)]
        random: bool,
        /// Out of the second repository, of [backup.copy]
        #[arg(long)]
        from_copy: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Started by cron: noted in the run log, and nothing is asked
        #[arg(long)]
        cron: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.start_logging();
    cli::finish(PROGRAM, execute(cli))
}

fn execute(cli: Cli) -> Result<u8, Failure> {
    supervise::install_stop_signal().map_err(anyhow::Error::from)?;
    let global = &cli.global;
    let config = || -> Result<_, Failure> {
        let config = global.load_config()?;
        config.remember_secrets();
        Ok(config)
    };
    let bars = |format: Format| progress::bars(global.quiet || format != Format::Table);
    match cli.command {
        Command::Plan { from, format } => plan::run(&config()?, &from.asked(), format),
        Command::Cluster {
            from,
            target_dir,
            start,
            port,
            owner,
            force,
            yes,
            dry_run,
            format,
        } => {
            let wanted = cluster::Wanted {
                target_dir,
                start,
                port,
                owner,
                force,
                yes,
                dry_run,
            };
            cluster::run(&config()?, &from.asked(), &wanted, &bars(format), format)
        }
        Command::Database {
            from,
            into,
            swap,
            yes,
            dry_run,
            format,
        } => {
            let wanted = database::Wanted {
                into,
                swap,
                yes,
                dry_run,
            };
            database::run(&config()?, &from.asked(), &wanted, &bars(format), format)
        }
        Command::Table {
            tables,
            from,
            new_name,
            condition,
            yes,
            dry_run,
            format,
        } => {
            let wanted = table::Wanted {
                tables,
                new_name,
                condition,
                yes,
                dry_run,
            };
            table::run(&config()?, &from.asked(), &wanted, &bars(format), format)
        }
        Command::Files {
            paths,
            from,
            target_dir,
            force,
            yes,
            dry_run,
            format,
        } => {
            let wanted = files::Wanted {
                paths,
                target_dir,
                force,
                yes,
                dry_run,
            };
            files::run(&config()?, &from.asked(), &wanted, &bars(format), format)
        }
        Command::Drill {
            random,
            from_copy,
            yes,
            dry_run,
            cron,
            format,
        } => {
            let wanted = drill::Wanted {
                random,
                from_copy,
                yes,
                dry_run,
                trigger: if cron { Trigger::Cron } else { Trigger::Manual },
            };
            drill::run(&config()?, wanted, &bars(format), format)
        }
        Command::Completions { shell } => cli::print_completions::<Cli>(shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
