//! A new migration is embedded with the next build: without this, cargo does not look at the folder.

fn main() {
    println!("cargo:rerun-if-changed=src/pg/migrations");
}
