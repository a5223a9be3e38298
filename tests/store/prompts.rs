//! Tasks found by words of their prompts.

use reelhook::store::tasks::Page;

use super::*;

fn with_prompt(id: &str, prompt: &str) -> Expectation {
    Expectation {
        source: "kie".to_owned(),
        task_id: id.parse().unwrap(),
        kind: "video".parse().unwrap(),
        index: 0,
        family: None,
        params: None,
        prompt: Some(prompt.to_owned()),
        ask_now: false,
    }
}

impl Bench {
    async fn index(&self) {
        while self.store.index_some_prompts().await.unwrap() {}
        assert_eq!(self.store.prompts_left().await.unwrap(), 0);
    }

    async fn page_of(&self, filter: TaskFilter) -> Page<TaskRecord> {
        self.store.list_tasks(&filter).await.unwrap()
    }

    async fn found(&self, words: &str) -> Vec<String> {
        let filter = TaskFilter {
            words: Some(words.to_owned()),
            limit: 50,
            ..TaskFilter::default()
        };
        let page = self.page_of(filter).await;
        assert_eq!(page.next, None);
        page.items.into_iter().map(|task| task.task_id).collect()
    }
}

#[tokio::test]
async fn tasks_are_found_by_words_in_any_case_and_the_beginning_of_the_last() {
    let bench = Bench::new().await;
    let prompts = [
        ("fox", "A red FOX, running through snow"),
        ("cafe", "Ein Café im Regen — slow-motion"),
        ("odd", "\"NEAR(red fox)\" OR prompt:* ^x 火狐"),
        ("plain", "red bricks"),
    ];
    let expected = prompts.map(|(id, prompt)| with_prompt(id, prompt));
    bench.store.expect_tasks(expected.to_vec()).await.unwrap();
    bench.receive(&failure("without")).await;
    assert_eq!(bench.found("fox").await, [""; 0], "not looked at yet");
    assert_eq!(bench.store.prompts_left().await.unwrap(), 5);
    bench.index().await;
    assert!(!bench.store.index_some_prompts().await.unwrap());
    assert_eq!(bench.found("red fox").await, ["odd", "fox"]);
    assert_eq!(bench.found("FOX red").await, ["odd", "fox"]);
    assert_eq!(bench.found("re").await, ["plain", "odd", "cafe", "fox"]);
    assert_eq!(bench.found("snow run").await, ["fox"]);
    assert_eq!(
        bench.found("ru snow").await,
        [""; 0],
        "only the last one is a beginning"
    );
    assert_eq!(bench.found("CAFE\u{301} slow-mot").await, ["cafe"]);
    assert_eq!(bench.found("火狐").await, ["odd"]);
    for hostile in [
        "\"",
        "a\" OR \"b",
        "NEAR(",
        "prompt:x AND",
        "^*",
        "(((",
        "-",
        "a\u{0}b",
        "{x}:y",
        "'",
    ] {
        bench.found(hostile).await;
    }
    assert_eq!(bench.found("red NOT fox").await, [""; 0], "a word like any other");
    assert_eq!(bench.found("…").await.len(), 5, "no word at all");
}

#[tokio::test]
async fn a_prompt_that_comes_later_is_found_and_one_that_goes_is_not() {
    let bench = Bench::new().await;
    bench.expect("late").await;
    bench
        .store
        .expect_tasks(vec![with_prompt("gone", "red fox")])
        .await
        .unwrap();
    bench.index().await;
    let body = r#"{"code":200,"msg":"ok","data":{"taskId":"late","promptJson":{"prompt":"a red balloon"}}}"#;
    bench.receive(body).await;
    assert_eq!(bench.found("balloon").await, [""; 0]);
    bench.index().await;
    assert_eq!(bench.found("red").await, ["gone", "late"]);
    let gone = bench.task("gone").await.unwrap().row;
    assert_eq!(bench.store.delete_task(gone).await.unwrap(), Deletion::Done);
    assert_eq!(bench.found("red").await, ["late"]);
    assert_eq!(bench.number("SELECT count(*) FROM prompts").await, 1);
    // A row that was looked at is not given out again, even if it was the last.
    let bench = bench.reopened().await;
    bench
        .store
        .expect_tasks(vec![with_prompt("next", "red again")])
        .await
        .unwrap();
    bench.index().await;
    assert_eq!(bench.found("red").await, ["next", "late"]);
    bench.is_sound().await;
}

#[tokio::test]
async fn pages_of_what_words_find_follow_each_other_and_end() {
    let bench = Bench::new().await;
    for n in 0..23_u32 {
        let prompt = if n.is_multiple_of(2) {
            "even fox"
        } else {
            "odd fox"
        };
        let id = format!("t{n}");
        bench
            .store
            .expect_tasks(vec![with_prompt(&id, prompt)])
            .await
            .unwrap();
        if n.is_multiple_of(4) {
            bench.receive(&failure(&id)).await;
        }
    }
    bench.index().await;
    let mut filter = TaskFilter {
        words: Some("even fo".to_owned()),
        state: Some("failed".to_owned()),
        limit: 2,
        ..TaskFilter::default()
    };
    let mut found = Vec::new();
    loop {
        let page = bench.page_of(filter.clone()).await;
        assert!(page.items.len() <= 2);
        found.extend(page.items.into_iter().map(|task| task.task_id));
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    assert_eq!(found, ["t20", "t16", "t12", "t8", "t4", "t0"]);
}
