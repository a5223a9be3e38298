//! Lists of URLs in all the spellings in which the provider writes them.

use serde_json::value::RawValue;

use super::fields::{Fields, for_each_element, is_array, is_object, string};

/// How often lists may be nested or encoded within each other.
const MAX_DEPTH: usize = 4;
/// Where an element of a list that is an object keeps its URL (`resultUrl` in Midjourney's record-info).
const ELEMENT_FIELDS: [&str; 2] = ["resultUrl", "url"];

/// Calls `visit` with every URL in `raw`, trimmed and never blank, in order.
///
/// `raw` may be an array of strings or of `{"resultUrl": …}`, a string that holds such an array, a string
/// `[u1, u2]` without quotes (the `OpenAPI` schema of Veo's callback), or one bare URL. Whether something is a URL at
/// all is for the guard of outgoing requests to judge: what is announced is listed.
pub(super) fn for_each_url(raw: &RawValue, visit: &mut dyn FnMut(&str)) {
    in_value(raw, MAX_DEPTH, visit);
}

/// Whether there is any URL in `raw`.
pub(super) fn has_url(raw: &RawValue) -> bool {
    let mut any = false;
    for_each_url(raw, &mut |_| any = true);
    any
}

fn in_value(raw: &RawValue, depth: usize, visit: &mut dyn FnMut(&str)) {
    if let Some(text) = string(raw) {
        return in_text(text.trim(), depth, visit);
    }
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    if is_array(raw) {
        for_each_element(raw, |element| in_value(element, depth, visit));
    } else if is_object(raw)
        && let Some(fields) = Fields::of(raw)
    {
        for value in ELEMENT_FIELDS.iter().filter_map(|name| fields.value(name)) {
            in_value(value, depth, visit);
        }
    }
}

fn in_text(text: &str, depth: usize, visit: &mut dyn FnMut(&str)) {
    if matches!(text, "" | "null") {
        return;
    }
    if let Some(depth) = depth.checked_sub(1)
        && text.starts_with(['[', '{', '"'])
    {
        if let Ok(raw) = serde_json::from_str(text) {
            return in_value(raw, depth, visit);
        }
        if let Some(elements) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return in_unquoted_list(elements, visit);
        }
    }
    visit(text);
}

/// A comma belongs to the URL before it unless another URL or white space follows: URLs may contain commas.
fn in_unquoted_list(elements: &str, visit: &mut dyn FnMut(&str)) {
    let mut start = 0;
    for (comma, _) in elements.match_indices(',') {
        if begins_an_element(&elements[comma + 1..]) {
            visit_unquoted(&elements[start..comma], visit);
            start = comma + 1;
        }
    }
    visit_unquoted(&elements[start..], visit);
}

fn begins_an_element(rest: &str) -> bool {
    let starts_with_scheme = |scheme: &str| {
        let head = rest.trim_start_matches(['"', '\'']).get(..scheme.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    };
    rest.is_empty()
        || rest.starts_with(|first: char| first.is_whitespace() || first == ',')
        || starts_with_scheme("http://")
        || starts_with_scheme("https://")
}

fn visit_unquoted(element: &str, visit: &mut dyn FnMut(&str)) {
    let url = element.trim().trim_matches(['"', '\'']).trim();
    if !matches!(url, "" | "null") {
        visit(url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(json: &str) -> Vec<String> {
        let mut urls = Vec::new();
        for_each_url(serde_json::from_str(json).unwrap(), &mut |url| {
            urls.push(url.to_owned());
        });
        urls
    }

    #[test]
    fn every_spelling_of_a_list_is_read() {
        for json in [
            r#"["https://a/1","https://a/2"]"#,
            r#"[" https://a/1 ",null,"","  ","https://a/2"]"#,
            r#"[{"resultUrl":"https://a/1"},{"resultUrl":"https://a/2"}]"#,
            r#""[\"https://a/1\",\"https://a/2\"]""#,
            r#""\"[\\\"https://a/1\\\",\\\"https://a/2\\\"]\"""#,
            r#""[https://a/1, https://a/2]""#,
            r#""[https://a/1,https://a/2]""#,
            r#""['https://a/1', 'https://a/2', ]""#,
            r#"["https://a/1",["https://a/2"]]"#,
            r#"["[https://a/1]","[\"https://a/2\"]"]"#,
            r#""[{\"resultUrl\":\"https://a/1\"},{\"url\":\"https://a/2\"}]""#,
        ] {
            assert_eq!(urls(json), ["https://a/1", "https://a/2"], "{json}");
        }
    }

    #[test]
    fn one_bare_url_is_a_list_of_one() {
        for json in [
            r#""https://a/1,2""#,
            r#""[https://a/1,2]""#,
            r#"{"resultUrl":"https://a/1,2"}"#,
        ] {
            assert_eq!(urls(json), ["https://a/1,2"], "{json}");
        }
    }

    #[test]
    fn nothing_is_read_from_nothing() {
        for json in [
            "null",
            "[]",
            "{}",
            r#""""#,
            r#"" ""#,
            r#""[]""#,
            r#""null""#,
            r#""[null]""#,
            "7",
            "true",
            "[1,false]",
        ] {
            assert_eq!(urls(json), [] as [&str; 0], "{json}");
            assert!(!has_url(serde_json::from_str(json).unwrap()));
        }
    }

    #[test]
    fn a_broken_list_is_listed_as_it_stands() {
        assert_eq!(urls(r#""[\"https://a/1\", ""#), [r#"["https://a/1","#]);
    }

    #[test]
    fn endless_nesting_ends() {
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(urls(&nested), [] as [&str; 0]);
    }
}
