//! What is read of files, well-meant and hostile ones.

use std::io::{self, Read};

use serde_json::{Value, json};

use super::backlog::{Filling, Standing};
use super::input::{Defaults, Entry, Format, Input};

fn defaults() -> Defaults {
    Defaults {
        source: None,
        kind: "video".parse().unwrap(),
        index: 0,
        family: None,
    }
}

fn read_from(from: impl Read, format: Option<Format>) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let input = Input {
        name: "f",
        format,
        defaults: &defaults(),
    };
    input.read(from, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

#[track_caller]
fn entries(file: &[u8]) -> Vec<Value> {
    let entries = read_from(file, None).unwrap_or_else(|error| panic!("{error:#}"));
    entries.iter().map(|entry| json!(entry)).collect()
}

#[track_caller]
fn ids(file: &[u8]) -> Vec<String> {
    let id = |entry: &Value| entry["task_id"].as_str().unwrap().to_owned();
    entries(file).iter().map(id).collect()
}

#[track_caller]
fn refused(file: &[u8], expected: &[&str]) {
    let Err(error) = read_from(file, None) else {
        panic!("it was taken");
    };
    let said = format!("{error:#}");
    for part in expected {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
    assert!(said.len() < 500 && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn lines_are_ids_whatever_ends_them() {
    let file = b"\xef\xbb\xbf# exported\r\n\r\n  a1  \nb2\r\n\n#c3\nd4\re5\n\xef\xbb\xbff6";
    assert_eq!(ids(file), ["a1", "b2", "d4", "e5", "f6"]);
    assert_eq!(
        entries(b"a1\n"),
        [json!({"task_id": "a1", "kind": "video", "index": 0, "ask": "now"})]
    );
}

#[test]
fn columns_are_found_by_their_header() {
    let file = b"\xef\xbb\xbfID,Task ID,kind,Index,source,family,prompt,when\r\n\
        5,a1,4k,2,paid,veo,\"A fox, \"\"red\"\",\nin the snow\",now\r\n6,b2,,,,,,\n,,,,,,,\n# c3\n7,d4\n";
    assert_eq!(
        entries(file),
        [
            json!({"task_id": "a1", "source": "paid", "kind": "4k", "index": 2, "family": "veo",
                   "params": {"prompt": "A fox, \"red\",\nin the snow"}, "ask": "now"}),
            json!({"task_id": "b2", "kind": "video", "index": 0, "ask": "now"}),
            json!({"task_id": "d4", "kind": "video", "index": 0, "ask": "now"}),
        ]
    );
    assert_eq!(ids(b"taskId\na1\n"), ["a1"]);
    assert_eq!(ids(b"id\na1\n"), ["a1"]);
    assert_eq!(ids(b"made;task_id\n\"a;b\";a1\n"), ["a1"]);
    assert_eq!(ids(b"made\ttask_id\nx\ta1\n"), ["a1"]);
}

#[test]
fn without_a_header_the_id_comes_first() {
    assert_eq!(ids(b"a1,whatever\nb2,\n\"c3\"\n"), ["a1", "b2", "c3"]);
    assert_eq!(ids(b"\"a1\"\n\"b2\"\n"), ["a1", "b2"]);
}

#[test]
fn objects_are_taken_as_the_api_and_the_provider_write_them() {
    let file = br#"
{"task_id":"a1","kind":"4k","index":1,"source":"paid","params":{"prompt":"x"},"ask":"later"}
# by the provider
{"taskId":"b2","createTime":1}
{"code":200,"msg":"success","data":{"taskId":"c3"}}
{"id":17,"task_id":"d4","prompt":"y"}
{"id":18}"#;
    assert_eq!(ids(file), ["a1", "b2", "c3", "d4", "18"]);
    let entries = entries(file);
    assert_eq!(
        entries[0],
        json!({"task_id": "a1", "source": "paid", "kind": "4k", "index": 1, "params": {"prompt": "x"}, "ask": "now"})
    );
    assert_eq!(entries[3]["params"], json!({"prompt": "y"}));
}

#[test]
fn a_bad_line_is_named_with_what_to_do() {
    refused(
        b"a1\nb 2\n",
        &["f:2: ", "\"b 2\"", "a task id is 1 to 128 characters"],
    );
    refused(b"a1\n\n# c\r\nb2\x00\x1b[2J", &["f:4: ", "a task id is"]);
    refused(b"a1\n\xff\n", &["f:2: ", "not UTF-8"]);
    refused(
        b"\xff\xfea\x001\x00",
        &["f:1: ", "UTF-16", "save the file as UTF-8"],
    );
    refused(b"a,source\nb,kie\n", &["f:1: ", "no column task_id"]);
    refused(
        b"# x\ntask_id,index\na1,1\nb2,-1\n",
        &["f:4: ", "\"-1\" is no index"],
    );
    refused(
        b"task_id,kind\na1,4K\n",
        &["f:2: ", "\"4K\" is no kind", "such as video or 4k"],
    );
    refused(b"task_id,source\na1,K I E\n", &["f:2: ", "no source"]);
    refused(b"task_id,made\n,today\n", &["f:2: ", "\"\" is no task id"]);
    refused(
        b"{\"task_id\":\"a1\"}\n{\"task_id\":\n",
        &["f:2: ", "one JSON object a line"],
    );
    refused(b"{\"task\":\"a1\"}\n", &["f:1: ", "no task_id"]);
    refused(b"[{\"task_id\":\"a1\"}]\n", &["f:1: ", "jq -c '.[]'"]);
}

#[test]
fn a_quote_that_is_never_closed_does_not_swallow_the_rest() {
    refused(
        b"task_id,prompt\na1,\"x\nb2,y\nc3,z\n",
        &["f:2: ", "quote is never closed"],
    );
    refused(b"a1,x\n\"b2\nc3\nd4\n", &["f:2: ", "no task id"]);
}

/// As many bytes as one asks for.
struct Endless(&'static [u8]);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.read(buffer)?;
        if length > 0 {
            return Ok(length);
        }
        buffer.fill(b'a');
        Ok(buffer.len())
    }
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_the_memory() {
    for (beginning, line) in [
        (&b""[..], "f:1: "),
        (b"a1\n", "f:2: "),
        (b"{\"task_id\":\"a1\",\"prompt\":\"", "f:1: "),
        (b"task_id,prompt\na1,\"", "f:2: "),
        (b"task_id,prompt\na1,\"x\"\na2,", "f:3: "),
    ] {
        let Err(error) = read_from(Endless(beginning), None) else {
            panic!("it has no end");
        };
        let said = format!("{error:#}");
        assert!(
            said.contains(line) && said.contains("longer than 1.0 MiB"),
            "{said}"
        );
    }
}

#[test]
fn the_format_can_be_said() {
    let read = |format| read_from(&b"task_id\na1\n"[..], Some(format)).unwrap().len();
    assert_eq!((read(Format::Lines), read(Format::Csv)), (2, 1));
}

#[test]
fn every_task_is_in_the_backlog_once_and_walked_by_its_standing() {
    let mut filling = Filling::new().unwrap();
    for entry in read_from(&b"task_id,kind\na,\nb,\na,\na,4k\nc,\n"[..], None).unwrap() {
        filling.add(&entry).unwrap();
    }
    let mut backlog = filling.filled().unwrap();
    assert_eq!((backlog.len(), backlog.duplicates), (4, 1));
    backlog.note(1, Standing::Found);
    backlog.note(3, Standing::Found);
    for (standing, expected) in [
        (Standing::Open, ["a video", "a 4k"]),
        (Standing::Found, ["b video", "c video"]),
    ] {
        let mut walk = backlog.walk(standing).unwrap();
        let walked = std::iter::from_fn(|| walk.next(&backlog).unwrap());
        let walked: Vec<String> = walked
            .map(|(_, item)| format!("{} {}", item.task_id, item.kind))
            .collect();
        assert_eq!(walked, expected);
        assert_eq!(backlog.count(standing), 2);
    }
}
