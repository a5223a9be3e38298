//! Small films and stills made on the spot: real files that a browser plays, another one for every result.
//!
//! They are mosaics, a macroblock a tile, with the first digits of the task's id, a pattern and a bar that runs. The same
//! [`Subject`] gives the same bytes, so none has to be kept.

use sha2::{Digest as _, Sha256};

mod h264;
mod mosaic;
mod mp4;
mod png;
#[cfg(test)]
mod tests;

use mosaic::{Layout, Scene};

/// Pictures a second.
const RATE: u32 = 12;
/// Pictures of a film: three seconds.
const FRAMES: u32 = 36;

/// What a film or still shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// Whose it is: hexadecimal digits of it are written into the picture.
    pub(super) task_id: String,
    /// What tells it from the other files of that task.
    pub(super) label: String,
    /// Higher than wide.
    pub(super) portrait: bool,
    /// Twice as many pixels either way.
    pub(super) large: bool,
}

impl Subject {
    fn scene(&self) -> Scene {
        let digest = Sha256::digest(format!("{}/{}", self.task_id, self.label));
        let layout = Layout {
            portrait: self.portrait,
            scale: if self.large { 2 } else { 1 },
        };
        Scene::new(layout, &self.task_id, digest.into())
    }

    /// The film as an MP4 file that can be played while it is being loaded: H.264 baseline, three seconds, no sound. If it
    /// would have fewer than `least` bytes, a box that players skip fills it up.
    pub(super) fn film(&self, least: u64) -> Vec<u8> {
        let scene = self.scene();
        let mut encoder = h264::Encoder::new(scene.layout());
        let samples: Vec<Vec<u8>> = (0..FRAMES)
            .map(|frame| encoder.encode(&scene.frame(frame)))
            .collect();
        let track = mp4::Track {
            size: scene.layout().pixels(),
            sets: encoder.parameter_sets(),
            samples: &samples,
            rate: RATE,
        };
        mp4::file(&track, scene.noise(), least)
    }

    /// Its first picture as a PNG file.
    pub(super) fn still(&self) -> Vec<u8> {
        let scene = self.scene();
        let first = scene.frame(0);
        png::file(scene.layout().pixels(), |x, y| {
            first.tile_at(x / h264::TILE, y / h264::TILE).rgb()
        })
    }
}
