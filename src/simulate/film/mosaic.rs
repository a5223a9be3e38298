//! What the films show: tiles of one colour each, a macroblock large.

use super::FRAMES;
use super::h264::TILE;

/// Tiles of a picture that is wider than high.
const LONG: u32 = 20;
const SHORT: u32 = 12;

/// The hexadecimal digits in tiles, three wide and five high: a row is three bits, the first row the highest.
const DIGITS: [u16; 16] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_011_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
    0b111_101_111_101_101,
    0b110_101_110_101_110,
    0b111_100_100_100_111,
    0b110_101_101_101_110,
    0b111_100_110_100_111,
    0b111_100_110_100_100,
];

/// A colour: luma and the two chroma values, as video has them (16 to 235 and 16 to 240).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile(pub(super) [u8; 3]);

impl Tile {
    /// By BT.601, which players assume of small pictures.
    fn of([red, green, blue]: [i32; 3]) -> Self {
        let y = 16 + (66 * red + 129 * green + 25 * blue + 128) / 256;
        let cb = 128 + (-38 * red - 74 * green + 112 * blue) / 256;
        let cr = 128 + (112 * red - 94 * green - 18 * blue) / 256;
        Self([y, cb, cr].map(byte))
    }

    /// The way back.
    pub(super) fn rgb(self) -> [u8; 3] {
        let [y, cb, cr] = self.0.map(i32::from);
        let (y, cb, cr) = (298 * (y - 16), cb - 128, cr - 128);
        [y + 409 * cr, y - 100 * cb - 208 * cr, y + 516 * cb].map(|channel| byte((channel + 128) / 256))
    }
}

/// The nearest value of a byte.
pub(super) fn byte(value: i32) -> u8 {
    u8::try_from(value.clamp(0, 255)).expect("clamped to a byte")
}

/// How large, and which way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) portrait: bool,
    /// Tiles, either way, that show what one does at scale 1.
    pub(super) scale: u32,
}

impl Layout {
    /// Columns and rows at scale 1.
    fn plan(self) -> (u32, u32) {
        if self.portrait {
            (SHORT, LONG)
        } else {
            (LONG, SHORT)
        }
    }

    /// Columns and rows of tiles.
    pub(super) fn tiles(self) -> (u32, u32) {
        let (columns, rows) = self.plan();
        (columns * self.scale, rows * self.scale)
    }

    /// Width and height.
    pub(super) fn pixels(self) -> (u32, u32) {
        let (columns, rows) = self.tiles();
        (columns * TILE, rows * TILE)
    }
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    columns: u32,
    pub(super) tiles: Vec<Tile>,
}

impl Frame {
    pub(super) fn tile_at(&self, column: u32, row: u32) -> Tile {
        self.tiles[(row * self.columns + column) as usize]
    }
}

/// Everything that a film shows, by time.
#[derive(Debug)]
pub(super) struct Scene {
    layout: Layout,
    digits: Vec<usize>,
    digest: [u8; 32],
    ground: [i32; 3],
    ink: [i32; 3],
}

impl Scene {
    pub(super) fn new(layout: Layout, task_id: &str, digest: [u8; 32]) -> Self {
        let digits = task_id
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|digit| digit as usize);
        let channel = |at: usize| i32::from(digest[at]);
        let ground = [channel(0), channel(1), channel(2)].map(|value| 20 + value / 3);
        Self {
            layout,
            digits: digits.collect(),
            digest,
            ground,
            // Bright enough to be read on that ground, and of the other hue.
            ink: ground.map(|value| 255 - value / 2),
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Where the bytes begin that fill the file up.
    pub(super) fn noise(&self) -> u64 {
        let bytes = self.digest[24..].try_into().expect("eight bytes of thirty-two");
        u64::from_le_bytes(bytes)
    }

    pub(super) fn frame(&self, at: u32) -> Frame {
        let (columns, rows) = self.layout.tiles();
        let scale = self.layout.scale;
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (column / scale, row / scale)));
        Frame {
            columns,
            tiles: places.map(|(column, row)| self.tile(column, row, at)).collect(),
        }
    }

    /// From above: lines of digits, a pattern that wanders to the left, a bar that grows to the right.
    fn tile(&self, column: u32, row: u32, at: u32) -> Tile {
        let (columns, rows) = self.layout.plan();
        let lines = if self.layout.portrait { 2 } else { 1 };
        let painted = if row == rows - 1 {
            column * FRAMES <= at * columns
        } else if row > 6 * lines {
            self.pattern(column + at / 6, row)
        } else {
            self.writing(column, row)
        };
        Tile::of(if painted { self.ink } else { self.shaded(row) })
    }

    fn writing(&self, column: u32, row: u32) -> bool {
        let per_line = (self.layout.plan().0 / 4) as usize;
        let (x, y) = (column % 4, row % 6);
        // Between the digits and between the lines.
        if x == 3 || y == 0 {
            return false;
        }
        let nth = (row / 6) as usize * per_line + (column / 4) as usize;
        let digit = self.digits.get(nth).map_or(0, |digit| DIGITS[*digit]);
        let bit = 14 - (3 * (y - 1) + x);
        digit >> bit & 1 == 1
    }

    fn pattern(&self, column: u32, row: u32) -> bool {
        let bit = (column + 7 * row) % 160;
        self.digest[3 + (bit / 8) as usize] >> (bit % 8) & 1 == 1
    }

    /// The ground, lighter towards the bottom.
    fn shaded(&self, row: u32) -> [i32; 3] {
        let lighter = i32::try_from(row * 3).expect("few rows");
        self.ground.map(|value| value + lighter)
    }
}
