//! `[model.tiles]`: small objects in large pictures are found in parts of them.

use revoada_bundle::strict::Table;
use toml_edit::Table as TomlTable;

use super::print;

/// Parts of a picture; each is an inference of its own.
const TILES_MAX: u32 = 64;

/// A grid of tiles that a frame is cut into, each read as a picture of its own. What the tiles find is put together again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TilesConfig {
    pub columns: u32,
    pub rows: u32,
    /// Of a tile's width and height, shared with each neighbour: at least the size of the objects that are looked for, so
    /// that each is whole in one of them.
    pub overlap: f32,
    /// Read the whole picture as well, for what is larger than a tile.
    pub whole: bool,
}

impl TilesConfig {
    /// How many pictures a frame becomes.
    pub fn count(&self) -> usize {
        self.columns as usize * self.rows as usize + usize::from(self.whole)
    }
}

pub(super) fn tiles(table: &Table<'_>) -> Option<TilesConfig> {
    let (columns, rows) = (table.required().integer("columns", 1..=16u32), table.required().integer("rows", 1..=16u32));
    let overlap = table.float("overlap", 0.0..=0.9).map_or(0.2, |overlap| overlap as f32);
    let whole = table.boolean("whole").unwrap_or(true);
    let (columns, rows) = (columns?, rows?);
    if columns * rows < 2 {
        table.problem("columns", "one column and one row are the whole picture; leave `tiles` out");
    }
    if columns * rows > TILES_MAX {
        table.problem("columns", format!("{columns} columns of {rows} are more than {TILES_MAX} tiles"));
    }
    Some(TilesConfig { columns, rows, overlap, whole })
}

pub(super) fn to_table(tiles: &TilesConfig) -> TomlTable {
    print::table([
        ("columns", print::integer(tiles.columns.into())),
        ("rows", print::integer(tiles.rows.into())),
        ("overlap", print::number(tiles.overlap)),
        ("whole", tiles.whole.into()),
    ])
}
