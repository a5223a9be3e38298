//! The OpenAPI document as a person reads it: its operations and types, in words that a template can show.

use std::sync::LazyLock;

use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Object, Schema, SchemaType, Type};
use utoipa::openapi::{Content, Ref, RefOr, Required, Response};

use super::{DOCUMENT, operations_by_method};

static REFERENCE: LazyLock<Reference> = LazyLock::new(Reference::of_document);

/// All of it.
pub(in crate::http) struct Reference {
    /// What stands above all, in paragraphs.
    pub(in crate::http) about: Vec<Text>,
    pub(in crate::http) sections: Vec<Section>,
    pub(in crate::http) types: Vec<Described>,
}

/// The operations with one tag.
pub(in crate::http) struct Section {
    pub(in crate::http) name: String,
    pub(in crate::http) about: Vec<Text>,
    pub(in crate::http) operations: Vec<Call>,
}

/// One operation.
pub(in crate::http) struct Call {
    pub(in crate::http) id: String,
    pub(in crate::http) method: &'static str,
    pub(in crate::http) path: String,
    pub(in crate::http) summary: Text,
    pub(in crate::http) about: Vec<Text>,
    pub(in crate::http) parameters: Vec<Field>,
    pub(in crate::http) body: Option<Body>,
    pub(in crate::http) answers: Vec<Answer>,
}

/// What a request carries.
pub(in crate::http) struct Body {
    pub(in crate::http) kind: Text,
    pub(in crate::http) examples: Vec<String>,
}

/// What may come back.
pub(in crate::http) struct Answer {
    pub(in crate::http) status: String,
    pub(in crate::http) kind: Text,
    pub(in crate::http) about: Vec<Text>,
}

/// A parameter, or a field of a type.
pub(in crate::http) struct Field {
    pub(in crate::http) name: String,
    /// Where a parameter stands; empty of a field.
    pub(in crate::http) place: &'static str,
    pub(in crate::http) required: bool,
    pub(in crate::http) kind: Text,
    pub(in crate::http) about: Vec<Text>,
}

/// A type by its name.
pub(in crate::http) struct Described {
    pub(in crate::http) name: String,
    pub(in crate::http) kind: Text,
    pub(in crate::http) about: Vec<Text>,
    pub(in crate::http) fields: Vec<Field>,
}

/// A line of words.
pub(in crate::http) type Text = Vec<Span>;

/// Some of its words.
pub(in crate::http) enum Span {
    Plain(String),
    Code(String),
    /// The name of a type, which leads to it.
    Type(String),
}

impl Reference {
    /// That of the document.
    pub(in crate::http) fn of() -> &'static Self {
        &REFERENCE
    }

    fn of_document() -> Self {
        let tags = DOCUMENT.tags.iter().flatten();
        let sections = tags.map(|tag| Section {
            about: paragraphs(tag.description.as_deref().unwrap_or_default()),
            operations: tagged(&tag.name),
            name: tag.name.clone(),
        });
        let schemas = DOCUMENT
            .components
            .iter()
            .flat_map(|components| &components.schemas);
        Self {
            about: paragraphs(DOCUMENT.info.description.as_deref().unwrap_or_default()),
            sections: sections.collect(),
            types: schemas.map(|(name, schema)| described(name, schema)).collect(),
        }
    }
}

fn tagged(tag: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, item) in &DOCUMENT.paths.paths {
        for (method, operation) in operations_by_method(item) {
            if operation.tags.iter().flatten().any(|own| own == tag) {
                calls.push(call(method, path, operation));
            }
        }
    }
    calls
}

fn call(method: &'static str, path: &str, operation: &Operation) -> Call {
    let parameters = operation.parameters.iter().flatten().filter_map(|one| match one {
        RefOr::T(parameter) => Some(parameter_field(parameter)),
        RefOr::Ref(_) => None,
    });
    let body = match &operation.request_body {
        Some(RefOr::T(body)) => body.content.values().find_map(content).map(|content| Body {
            kind: content.schema.as_ref().map(kind).unwrap_or_default(),
            examples: examples(content),
        }),
        _ => None,
    };
    let answers = operation.responses.responses.iter();
    Call {
        id: operation.operation_id.clone().unwrap_or_default(),
        method,
        path: path.to_owned(),
        summary: words(operation.summary.as_deref().unwrap_or_default()),
        about: paragraphs(operation.description.as_deref().unwrap_or_default()),
        parameters: parameters.collect(),
        body,
        answers: answers
            .filter_map(|(status, response)| answer(status, response))
            .collect(),
    }
}

fn parameter_field(parameter: &Parameter) -> Field {
    Field {
        name: parameter.name.clone(),
        place: match parameter.parameter_in {
            ParameterIn::Path => "path",
            ParameterIn::Header => "header",
            _ => "query",
        },
        required: matches!(parameter.required, Required::True),
        kind: parameter.schema.as_ref().map(kind).unwrap_or_default(),
        about: paragraphs(parameter.description.as_deref().unwrap_or_default()),
    }
}

fn answer(status: &str, response: &RefOr<Response>) -> Option<Answer> {
    let response = match response {
        RefOr::T(response) => response,
        RefOr::Ref(shared) => {
            let responses = &DOCUMENT.components.as_ref()?.responses;
            match responses.get(name_of(shared))? {
                RefOr::T(response) => response,
                RefOr::Ref(_) => return None,
            }
        }
    };
    let (media, schema) = response
        .content
        .iter()
        .next()
        .map(|(media, of)| {
            (
                media.as_str(),
                content(of).and_then(|content| content.schema.as_ref()),
            )
        })
        .unwrap_or_default();
    let kind = match (media, schema) {
        ("application/json", Some(schema)) => kind(schema),
        ("application/problem+json", _) => vec![Span::Type("Problem".to_owned())],
        ("", _) => Vec::new(),
        (media, _) => vec![Span::Code(media.to_owned())],
    };
    Some(Answer {
        status: status.to_owned(),
        kind,
        about: response
            .description
            .lines()
            .map(|line| words(line.trim_start_matches("- ")))
            .collect(),
    })
}

fn content(content: &RefOr<Content>) -> Option<&Content> {
    match content {
        RefOr::T(content) => Some(content),
        RefOr::Ref(_) => None,
    }
}

fn examples(content: &Content) -> Vec<String> {
    let several = content.examples.values().filter_map(|example| match example {
        RefOr::T(example) => example.value.as_ref(),
        RefOr::Ref(_) => None,
    });
    let all = content.example.iter().chain(several);
    all.filter_map(|value| serde_json::to_string_pretty(value).ok())
        .collect()
}

fn described(name: &str, schema: &RefOr<Schema>) -> Described {
    let (fields, about) = match schema {
        RefOr::T(Schema::Object(object)) => (fields(object), object.description.as_deref()),
        RefOr::T(Schema::OneOf(one)) => (Vec::new(), one.description.as_deref()),
        _ => (Vec::new(), None),
    };
    Described {
        name: name.to_owned(),
        kind: if fields.is_empty() {
            kind(schema)
        } else {
            Vec::new()
        },
        about: paragraphs(about.unwrap_or_default()),
        fields,
    }
}

fn fields(object: &Object) -> Vec<Field> {
    let field = |(name, schema): (&String, &RefOr<Schema>)| Field {
        name: name.clone(),
        place: "",
        required: object.required.contains(name),
        kind: kind(schema),
        about: paragraphs(description(schema).unwrap_or_default()),
    };
    object.properties.iter().map(field).collect()
}

fn description(schema: &RefOr<Schema>) -> Option<&str> {
    match schema {
        RefOr::Ref(reference) => Some(reference.description.as_str()),
        RefOr::T(Schema::Object(object)) => object.description.as_deref(),
        RefOr::T(Schema::Array(array)) => array.description.as_deref(),
        RefOr::T(Schema::OneOf(one)) => {
            let inner = || one.items.iter().find_map(description);
            one.description.as_deref().or_else(inner)
        }
        RefOr::T(_) => None,
    }
}

/// What a value may be.
fn kind(schema: &RefOr<Schema>) -> Text {
    match schema {
        RefOr::Ref(reference) => vec![Span::Type(name_of(reference).to_owned())],
        RefOr::T(Schema::Object(object)) => of_object(object),
        RefOr::T(Schema::Array(array)) => {
            let items = match &array.items {
                ArrayItems::RefOrSchema(items) => kind(items),
                ArrayItems::False => Vec::new(),
            };
            [vec![plain("array of ")], items].into_iter().flatten().collect()
        }
        RefOr::T(Schema::OneOf(one)) => either(one.items.iter().map(kind)),
        RefOr::T(_) => Vec::new(),
    }
}

fn of_object(object: &Object) -> Text {
    if let Some(words) = &object.enum_values {
        return either(words.iter().map(|word| vec![Span::Code(bare(word))]));
    }
    if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref() {
        return [vec![plain("object of ")], kind(values)]
            .into_iter()
            .flatten()
            .collect();
    }
    let mut text = either(types(&object.schema_type).into_iter().map(|of| vec![plain(of)]));
    let bounds = [("from", &object.minimum), ("to", &object.maximum)];
    for (word, bound) in bounds {
        if let Some(bound) = bound.as_ref().and_then(|bound| serde_json::to_string(bound).ok()) {
            text.push(plain(&format!(" {word} {bound}")));
        }
    }
    if let Some(format) = object
        .format
        .as_ref()
        .and_then(|format| serde_json::to_value(format).ok())
        && format == "date-time"
    {
        text.push(plain(", a time"));
    }
    if let Some(pattern) = &object.pattern {
        text.extend([plain(" "), Span::Code(pattern.clone())]);
    }
    text
}

fn types(of: &SchemaType) -> Vec<&'static str> {
    let word = |of: &Type| match of {
        Type::Object => "object",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Array => "array",
        Type::Null => "null",
    };
    match of {
        SchemaType::Type(one) => vec![word(one)],
        SchemaType::Array(several) => several.iter().map(word).collect(),
        SchemaType::AnyValue => vec!["anything"],
    }
}

fn either(all: impl Iterator<Item = Text>) -> Text {
    let mut text = Text::new();
    for one in all {
        if !text.is_empty() {
            text.push(plain(" or "));
        }
        text.extend(one);
    }
    text
}

/// A value as it stands in a query.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn name_of(reference: &Ref) -> &str {
    let location = reference.ref_location.as_str();
    location.rsplit('/').next().unwrap_or(location)
}

fn plain(text: &str) -> Span {
    Span::Plain(text.to_owned())
}

/// Text with a line for each paragraph; what is broken within one is joined, but for tables.
fn paragraphs(text: &str) -> Vec<Text> {
    let parts = text.split("\n\n").filter(|part| !part.is_empty());
    let lines = |part: &str| {
        if part.starts_with('|') {
            let rows = part.lines().filter(|line| !line.contains("---"));
            return rows.map(words).collect();
        }
        vec![words(&part.replace('\n', " "))]
    };
    parts.flat_map(lines).collect()
}

/// What stands between backticks is code.
fn words(text: &str) -> Text {
    let parts = text.trim_matches(|c| c == '|' || c == ' ').split('`').enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(|(n, part)| match n % 2 {
            0 => Span::Plain(part.replace(" | ", " · ")),
            _ => Span::Code(part.to_owned()),
        })
        .collect()
}
