//! Lists the migrations, so that a new file in the folder is embedded with the next build. refinery's own macro does the same, and has a
//! second build of its regular expressions, addresses and times for that.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    const FOLDER: &str = "src/pg/migrations";
    println!("cargo:rerun-if-changed={FOLDER}");
    let mut names = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".sql").map(str::to_owned));
    }
    names.sort();
    let mut list = "[\n".to_owned();
    for name in names {
        let file = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{FOLDER}/{name}.sql\")");
        let _ = writeln!(list, "(\"{name}\", include_str!({file})),");
    }
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    fs::write(Path::new(&out).join("migrations.rs"), list + "]")
}
