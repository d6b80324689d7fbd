//! throwaway
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let size: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let db = sled::Config::new().path(&dir).open().unwrap();
    let mut max = 0;
    for r in 0..2000u32 {
        let mut b = sled::Batch::default();
        b.insert(&(r % 40).to_be_bytes(), vec![r as u8; size]);
        db.apply_batch(b).unwrap();
        db.flush().unwrap();
        max = max.max(std::fs::read_dir(format!("{dir}/blobs")).unwrap().count());
    }
    println!(
        "size {size}: blobs most at once {max}, at end {}",
        std::fs::read_dir(format!("{dir}/blobs")).unwrap().count()
    );
}
