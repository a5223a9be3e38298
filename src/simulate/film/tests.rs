use std::io::Cursor;

use super::h264::Encoder;
use super::*;
use crate::media;

fn subject(portrait: bool, large: bool) -> Subject {
    Subject {
        task_id: "8c1f00aabbccddee".to_owned(),
        label: "video-0-result-0".to_owned(),
        portrait,
        large,
    }
}

fn examined(file: &[u8]) -> media::Facts {
    let length = file.len() as u64;
    media::examine(Cursor::new(file), length)
        .expect("the file is whole")
        .expect("its kind is known")
}

#[test]
fn a_film_is_what_our_own_reader_takes_for_one() {
    for (portrait, large, width, height) in [
        (false, false, 320, 192),
        (true, false, 192, 320),
        (false, true, 640, 384),
    ] {
        let film = subject(portrait, large).film(100_000);
        assert_eq!(film.len(), 100_000);
        let facts = examined(&film);
        assert_eq!(facts.content_type, "video/mp4");
        assert_eq!((facts.width, facts.height), (Some(width), Some(height)));
        assert_eq!(facts.duration_ms, Some(3_000));
        assert_eq!(facts.codec.as_deref(), Some("h264"));
    }
}

#[test]
fn a_film_is_small_unless_it_is_to_be_large() {
    let film = subject(false, true).film(0);
    assert!(film.len() < 100_000, "{} bytes", film.len());
    assert!(film.len() > 1_000, "{} bytes", film.len());
}

#[test]
fn a_still_is_a_picture_of_the_size_of_the_film() {
    let facts = examined(&subject(false, true).still());
    assert_eq!(facts.content_type, "image/png");
    assert_eq!((facts.width, facts.height), (Some(640), Some(384)));
}

#[test]
fn the_same_subject_is_the_same_film_and_another_is_another() {
    let one = subject(false, false);
    assert_eq!(one.film(5_000), one.film(5_000));
    let label = "video-0-result-1".to_owned();
    assert_ne!(one.film(5_000), Subject { label, ..one.clone() }.film(5_000));
}

#[test]
fn what_a_decoder_shows_never_strays_from_what_was_drawn() {
    let scene = subject(false, false).scene();
    let mut encoder = Encoder::new(scene.layout());
    for at in 0..FRAMES {
        let frame = scene.frame(at);
        encoder.encode(&frame);
        for (shown, drawn) in encoder.shown().iter().zip(&frame.tiles) {
            for (shown, drawn) in shown.0.iter().zip(drawn.0) {
                assert!(shown.abs_diff(drawn) <= 1, "frame {at}: {shown} for {drawn}");
            }
        }
    }
}
