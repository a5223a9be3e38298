//! A very small H.264 encoder (ITU-T H.264, baseline profile, CAVLC), for pictures made of macroblocks of one colour.
//!
//! The first picture is all Intra16x16: each macroblock is predicted from its left neighbour, or the one above, and the
//! difference to its colour is a single DC coefficient for luma and one for each chroma plane. Later pictures skip every
//! macroblock that did not change. As a flat prediction plus a DC coefficient is flat again, what a decoder will show is known
//! exactly, and nothing drifts.

use super::mosaic::{Frame, Layout, Tile, byte};

/// Pixels of a macroblock, either way.
pub(super) const TILE: u32 = 16;

/// Quantiser of luma and, at this value, of chroma as well: a step of luma is then less than one shade.
const QP: i32 = 24;
/// The value everything is predicted from where there is no neighbour.
const MIDDLE: u8 = 128;
/// `frame_num` has so many bits, which is more than a film has pictures.
const FRAME_NUM_BITS: u32 = 8;

/// NAL unit types, with a reference level of 3: a sequence parameter set, a picture parameter set, a picture that
/// needs no other, one that does.
const SPS: u8 = 0x67;
const PPS: u8 = 0x68;
const IDR: u8 = 0x65;
const NON_IDR: u8 = 0x61;

/// Where a macroblock is predicted from, with the numbers that the standard gives it for luma and for chroma.
#[derive(Debug, Clone, Copy)]
struct Prediction {
    from: [u8; 3],
    luma_mode: u32,
    chroma_mode: u32,
}

/// Encodes the pictures of one film, in order.
#[derive(Debug)]
pub(super) struct Encoder {
    columns: usize,
    rows: usize,
    /// What a decoder shows of the last picture; empty before the first.
    shown: Vec<Tile>,
    /// The picture that this was.
    drawn: Vec<Tile>,
    frame_num: u32,
}

impl Encoder {
    pub(super) fn new(layout: Layout) -> Self {
        let (columns, rows) = layout.tiles();
        Self {
            columns: columns as usize,
            rows: rows as usize,
            shown: Vec::new(),
            drawn: Vec::new(),
            frame_num: 0,
        }
    }

    /// The sequence and the picture parameter set.
    pub(super) fn parameter_sets(&self) -> [Vec<u8>; 2] {
        let mut sps = Bits::default();
        // Baseline (66) that also obeys the constraints of main, level 3.
        for byte in [66, 0b1100_0000, 30] {
            sps.put(byte, 8);
        }
        let width = u32::try_from(self.columns).expect("few columns");
        let height = u32::try_from(self.rows).expect("few rows");
        // Its id, the bits of frame_num, pictures shown in the order they come, one reference picture, …
        for value in [0, FRAME_NUM_BITS - 4, 2, 1] {
            sps.unsigned(value);
        }
        // … no gaps in frame_num;
        sps.put(0, 1);
        sps.unsigned(width - 1);
        sps.unsigned(height - 1);
        // whole frames, 8x8 inference as those demand; no cropping, nothing about display.
        sps.put(0b1100, 4);

        let mut pps = Bits::default();
        pps.unsigned(0);
        pps.unsigned(0);
        // CAVLC, no field pictures; one slice group; one reference; no weights.
        pps.put(0b00, 2);
        for _ in 0..3 {
            pps.unsigned(0);
        }
        pps.put(0, 3);
        // The quantiser, counted from 26, that of switching pictures, the offset of chroma.
        for value in [QP - 26, 0, 0] {
            pps.signed(value);
        }
        // Slices say how they are deblocked; intra may predict from inter; no redundant pictures.
        pps.put(0b100, 3);
        [nal(SPS, sps), nal(PPS, pps)]
    }

    /// One picture as a NAL unit, without its length.
    pub(super) fn encode(&mut self, frame: &Frame) -> Vec<u8> {
        let first = self.shown.is_empty();
        let mut bits = Bits::default();
        if first {
            self.shown = vec![Tile([MIDDLE; 3]); frame.tiles.len()];
            slice_header(&mut bits, 7, 0);
        } else {
            self.frame_num += 1;
            slice_header(&mut bits, 5, self.frame_num);
        }
        let mut skipped = 0;
        for (at, tile) in frame.tiles.iter().enumerate() {
            if !first && self.drawn[at] == *tile {
                skipped += 1;
                continue;
            }
            if !first {
                bits.unsigned(skipped);
                skipped = 0;
            }
            // In a picture that has others than intra macroblocks, those come first in the numbering.
            self.macroblock(&mut bits, at, *tile, if first { 0 } else { 5 });
        }
        if skipped > 0 {
            bits.unsigned(skipped);
        }
        self.drawn.clone_from(&frame.tiles);
        nal(if first { IDR } else { NON_IDR }, bits)
    }

    fn macroblock(&mut self, bits: &mut Bits, at: usize, tile: Tile, offset: u32) {
        let prediction = self.prediction(at);
        let [y, cb, cr] = prediction.from;
        let luma = level(y, tile.0[0], luma_residual);
        let chroma = [
            level(cb, tile.0[1], chroma_residual),
            level(cr, tile.0[2], chroma_residual),
        ];
        let has_chroma = u32::from(chroma != [0, 0]);
        bits.unsigned(offset + 1 + prediction.luma_mode + 4 * has_chroma);
        bits.unsigned(prediction.chroma_mode);
        // The quantiser stays.
        bits.signed(0);
        bits.coefficient(luma, &LUMA_DC);
        if has_chroma == 1 {
            for level in chroma {
                bits.coefficient(level, &CHROMA_DC);
            }
        }
        self.shown[at] = Tile([
            byte(i32::from(y) + luma_residual(luma)),
            byte(i32::from(cb) + chroma_residual(chroma[0])),
            byte(i32::from(cr) + chroma_residual(chroma[1])),
        ]);
    }

    /// From the left, else from above: DC prediction of chroma would mix both in some quarters only.
    fn prediction(&self, at: usize) -> Prediction {
        let (from, luma_mode, chroma_mode) = if !at.is_multiple_of(self.columns) {
            (self.shown[at - 1].0, 1, 1)
        } else if at >= self.columns {
            (self.shown[at - self.columns].0, 0, 2)
        } else {
            ([MIDDLE; 3], 2, 0)
        };
        Prediction {
            from,
            luma_mode,
            chroma_mode,
        }
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> &[Tile] {
        &self.shown
    }
}

/// `slice_type` 7 is all intra, of a picture that needs no other; 5 all predicted from one.
fn slice_header(bits: &mut Bits, slice_type: u32, frame_num: u32) {
    bits.unsigned(0);
    bits.unsigned(slice_type);
    bits.unsigned(0);
    bits.put(frame_num, FRAME_NUM_BITS);
    if slice_type == 7 {
        // idr_pic_id; earlier pictures may be shown; no long-term reference.
        bits.unsigned(0);
        bits.put(0b00, 2);
    } else {
        // As many references as usual, in the usual order, marked in the usual way.
        bits.put(0b000, 3);
    }
    // The quantiser as in the picture parameter set; no deblocking, which would blur the edges of tiles.
    bits.signed(0);
    bits.unsigned(1);
}

/// The level that brings `from` nearest to `to`.
fn level(from: u8, to: u8, residual: fn(i32) -> i32) -> i32 {
    let wanted = i32::from(to) - i32::from(from);
    let near = wanted * 64 / (residual(64));
    (near - 2..=near + 2)
        .min_by_key(|level| ((residual(*level) - wanted).abs(), level.abs()))
        .expect("the range has five values")
}

/// What a decoder adds to every luma sample for this DC level (8.5.10, 8.5.12 with QP 24).
fn luma_residual(level: i32) -> i32 {
    let scaled = (level * 160 + 2) >> 2;
    (scaled + 32) >> 6
}

/// The same of chroma (8.5.11).
fn chroma_residual(level: i32) -> i32 {
    let scaled = ((level * 160) << 4) >> 5;
    (scaled + 32) >> 6
}

/// Codes of `coeff_token` (table 9-5) as value and length: for no coefficient, for one of ±1, for one of another value.
struct Tokens([(u32, u32); 3]);

const LUMA_DC: Tokens = Tokens([(1, 1), (1, 2), (0b101, 6)]);
const CHROMA_DC: Tokens = Tokens([(1, 2), (1, 1), (0b111, 6)]);

/// A string of bits, highest first.
#[derive(Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are in use, 0 for all of them.
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, length: u32) {
        for at in (0..length).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let bit = u8::from(value >> at & 1 == 1);
            *self.bytes.last_mut().expect("just made sure of") |= bit << (7 - self.used);
            self.used = (self.used + 1) % 8;
        }
    }

    /// `ue(v)` (9.1).
    fn unsigned(&mut self, value: u32) {
        let length = (value + 1).ilog2();
        self.put(0, length);
        self.put(value + 1, length + 1);
    }

    /// `se(v)` (9.1.1).
    fn signed(&mut self, value: i32) {
        let twice = 2 * value.unsigned_abs();
        self.unsigned(if value > 0 { twice - 1 } else { twice });
    }

    /// A block of which only the first coefficient is not zero, if any (7.3.5.3.2, 9.2).
    fn coefficient(&mut self, level: i32, tokens: &Tokens) {
        let which = level.unsigned_abs().min(2) as usize;
        let (token, length) = tokens.0[which];
        self.put(token, length);
        match level {
            0 => return,
            1 | -1 => self.put(u32::from(level < 0), 1),
            _ => self.level(level),
        }
        // No zeros before it.
        self.put(1, 1);
    }

    /// A level that is not ±1, the first and only one of its block.
    fn level(&mut self, level: i32) {
        let code = 2 * level.unsigned_abs() - if level > 0 { 4 } else { 3 };
        match code {
            0..14 => self.put(1, code + 1),
            14..30 => {
                self.put(1, 15);
                self.put(code - 14, 4);
            }
            _ => {
                self.put(1, 16);
                self.put(code - 30, 12);
            }
        }
    }
}

/// A NAL unit: its type, the bits with their stop bit, and a byte between any that would look like the start of another.
fn nal(kind: u8, mut bits: Bits) -> Vec<u8> {
    bits.put(1, 1);
    let mut unit = vec![kind];
    let mut zeros = 0;
    for byte in bits.bytes {
        if zeros == 2 && byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        unit.push(byte);
    }
    unit
}
