//! The OpenAPI document of all routes, put together from the annotations of their handlers and the types these answer with.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ArrayItems, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, RefOr};

use super::{callbacks, dropin, problem};

pub(super) mod page;
mod problems;
pub(super) mod words;

static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(document);
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let text = DOCUMENT.to_pretty_json();
    text.expect("the document is made of texts and numbers") + "\n"
});

/// What stands above all operations, and the one that goes past the router.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "reelhook",
        description = "A webhook receiver for generated media: takes a provider's callbacks, downloads what they announce, \
            and serves the results.\n\n\
            Every `GET` answers `HEAD` as well. Times are RFC 3339 in UTC. A field that may be null is always there; one \
            that is not required is left out where it says nothing, and never null. Clients should tolerate fields and \
            words that are not listed here: later versions add some.",
    ),
    servers((url = "/")),
    tags(
        (name = "tasks", description = "What was generated, or is awaited."),
        (name = "files", description = "What is stored."),
        (name = "deliveries", description = "What arrived, and what was made of it."),
        (name = "server", description = "How it is doing."),
        (name = "callbacks", description = "For the provider."),
        (name = "provider's API", description = "The provider's own API, for programs that were written for it: they change \
            their base URL and keep everything else. Requests and answers have the provider's shape, errors included."),
    ),
    paths(callbacks::receive),
    components(schemas(problem::Document, dropin::Document)),
)]
struct Base;

/// The document as it is served and kept in `docs/openapi.json`.
pub fn openapi_json() -> &'static str {
    &TEXT
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")),
)]
pub(super) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}

fn document() -> utoipa::openapi::OpenApi {
    let mut document = Base::openapi();
    // After the routes: the callback is their subject, and no client's.
    let callback = std::mem::take(&mut document.paths);
    document.merge(super::routes().into_openapi());
    document.paths.paths.extend(callback.paths);

    let components = document.components.get_or_insert_with(Components::new);
    problems::describe_common(components);
    describe_credentials(components);
    let operations = document.paths.paths.values().flat_map(operations);
    let asked: BTreeSet<_> = operations.flat_map(body_types).collect();
    require_nullable(components, &asked);

    for (path, item) in &mut document.paths.paths {
        for operation in operations_mut(item) {
            if path.starts_with("/v1/") {
                problems::add_common(operation);
            }
            problems::write_out(operation);
        }
    }
    document
}

fn describe_credentials(components: &mut Components) {
    let bearer = |description| {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        SecurityScheme::Http(bearer.description(Some(description)).build())
    };
    let in_query = |name, description| {
        SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::with_description(name, description)))
    };
    let schemes = [
        (
            "bearer",
            bearer(
                "One of `api.tokens`. Without any configured, this machine alone is let in, and needs none.",
            ),
        ),
        (
            "link",
            in_query(
                "signature",
                "A signed link to one file, with `source` and `expires` in its query, too. It is taken as it was given out.",
            ),
        ),
        (
            "callback_token",
            in_query("token", "One of the source's `tokens`, if it has any."),
        ),
        (
            "provider_key",
            bearer("The source's own `api_key`, or one of `api.tokens`. Always needed."),
        ),
    ];
    for (name, scheme) in schemes {
        components.add_security_scheme(name, scheme);
    }
}

fn operations(item: &PathItem) -> impl Iterator<Item = &Operation> {
    operations_by_method(item).map(|(_, operation)| operation)
}

fn operations_by_method(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let PathItem {
        get, post, delete, ..
    } = item;
    let all = [("GET", get), ("POST", post), ("DELETE", delete)];
    all.into_iter()
        .filter_map(|(method, one)| Some((method, one.as_ref()?)))
}

fn operations_mut(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get, post, delete, ..
    } = item;
    [get, post, delete].into_iter().flatten()
}

/// The types that requests of an operation are made of.
fn body_types(operation: &Operation) -> Vec<String> {
    let Some(RefOr::T(body)) = &operation.request_body else {
        return Vec::new();
    };
    let schemas = body.content.values().filter_map(|content| match content {
        RefOr::T(content) => content.schema.as_ref(),
        RefOr::Ref(_) => None,
    });
    schemas.flat_map(references).collect()
}

/// The types that a schema names, itself or as one of several.
fn references(schema: &RefOr<Schema>) -> Vec<String> {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next();
            name.map(str::to_owned).into_iter().collect()
        }
        RefOr::T(Schema::OneOf(one)) => one.items.iter().flat_map(references).collect(),
        RefOr::T(Schema::Array(array)) => match &array.items {
            ArrayItems::RefOrSchema(item) => references(item),
            ArrayItems::False => Vec::new(),
        },
        RefOr::T(_) => Vec::new(),
    }
}

/// In answers, a field that may be null is there; the derive knows only that it may be null.
fn require_nullable(components: &mut Components, asked: &BTreeSet<String>) {
    for (name, schema) in &mut components.schemas {
        if let (false, RefOr::T(Schema::Object(object))) = (asked.contains(name), schema) {
            let nullable = object.properties.iter().filter(|(_, schema)| admits_null(schema));
            object.required.extend(nullable.map(|(name, _)| name.clone()));
        }
    }
}

fn admits_null(schema: &RefOr<Schema>) -> bool {
    let has_null = |of: &SchemaType| match of {
        SchemaType::Type(of) => *of == Type::Null,
        SchemaType::Array(several) => several.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => has_null(&object.schema_type),
        RefOr::T(Schema::Array(array)) => has_null(&array.schema_type),
        RefOr::T(Schema::OneOf(one)) => one.items.iter().any(admits_null),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_an_operation_names_is_explained() {
        assert!(!openapi_json().contains(problems::UNEXPLAINED));
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_a_summary() {
        let operations: Vec<_> = DOCUMENT.paths.paths.values().flat_map(operations).collect();
        let names: BTreeSet<_> = operations.iter().map(|one| one.operation_id.as_deref()).collect();
        assert_eq!(names.len(), operations.len());
        assert!(operations.iter().all(|one| one.summary.is_some()));
    }
}
