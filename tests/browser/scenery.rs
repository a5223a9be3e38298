//! Films worth looking at, for pictures of the dashboard: hills under a sky, drawn by ffmpeg from a palette.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Colours as red, green, blue: of the sky above, of the sky at the horizon, of the sun.
pub(crate) struct Palette([[u8; 3]; 3]);

pub(crate) const DAWN: Palette = Palette([[42, 54, 110], [250, 160, 110], [255, 220, 160]]);
pub(crate) const NOON: Palette = Palette([[70, 140, 210], [205, 230, 240], [255, 255, 235]]);
pub(crate) const DUSK: Palette = Palette([[60, 20, 70], [230, 80, 70], [255, 190, 90]]);
pub(crate) const NIGHT: Palette = Palette([[6, 10, 30], [40, 70, 110], [220, 230, 255]]);
pub(crate) const MIST: Palette = Palette([[120, 140, 140], [215, 220, 210], [250, 250, 240]]);

/// Whether there is an ffmpeg.
pub(crate) fn can_be_drawn() -> bool {
    let said = Command::new("ffmpeg")
        .arg("-version")
        .stdout(Stdio::null())
        .status();
    said.is_ok_and(|status| status.success())
}

/// A film of four seconds in this size. Small numbers of `phase` move the hills about.
pub(crate) fn film(dir: &Path, palette: &Palette, (width, height): (u32, u32), phase: f32) -> Vec<u8> {
    let path = dir.join("film.mp4");
    // Drawn small: each point is a long calculation.
    let (w, h) = if width > height { (384, 216) } else { (216, 384) };
    let filter = format!(
        "format=gbrp,geq={},scale={width}:{height}:flags=bicubic,format=yuv420p",
        channels(palette, phase)
    );
    let source = format!("nullsrc=s={w}x{h}:r=8:d=4");
    let drawn = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", &source, "-vf", &filter])
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-crf",
            "23",
            "-movflags",
            "+faststart",
        ])
        .arg(&path)
        .stdin(Stdio::null())
        .status();
    assert!(drawn.unwrap().success(), "ffmpeg draws {filter}");
    std::fs::read(path).unwrap()
}

/// What each point is, in the language of ffmpeg's `geq`.
fn channels(Palette([above, horizon, sun]): &Palette, phase: f32) -> String {
    let mut all = String::new();
    for (n, name) in ["r", "g", "b"].into_iter().enumerate() {
        let (above, horizon, sun) = (above[n], horizon[n], sun[n]);
        let sky = format!("lerp({above},{horizon},min(1,Y/H/0.62))");
        let away = "((X/W-0.62)^2*(W/H)^2+(Y/H-0.42+T*0.006)^2)";
        let light = format!("lerp({sky},{sun},min(1,exp(-{away}*900)*3+exp(-{away}*18)*0.55))");
        let mut point = light;
        for (layer, base) in [0.60, 0.70, 0.82].into_iter().enumerate() {
            let layer = f32::from(u8::try_from(layer).expect("three"));
            let shade = f32::from(horizon) * (0.62 - 0.22 * layer);
            let (wide, quick) = (4.0 + 2.0 * layer, 0.10 + 0.12 * layer);
            let edge = format!(
                "H*({base}+0.05*sin(X/W*{wide}+T*{quick}+{phase}+{layer})+0.016*sin(X/W*{wide}*3.7+T*{quick}+{phase}*3))"
            );
            // Soft by one point, or the edge is a staircase once it is enlarged.
            point = format!("lerp({point},{shade},clip(Y-{edge},0,1))");
        }
        let _ = write!(all, "{}{name}='{point}'", if n > 0 { ":" } else { "" });
    }
    all
}
