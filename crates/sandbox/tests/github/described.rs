//! GitHub's own descriptions as validators: of REST (`OpenAPI` 3.0) and of webhooks (JSON Schema).
//!
//! The files come from Octokit's packages by `scripts/github-schemas`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

const REST: &str = include_str!("../../schemas/github-rest.json");
const WEBHOOKS: &str = include_str!("../../schemas/github-webhooks.json");

// What GitHub answers on any route although the description names it on few. Their bodies are
// still held to `basic-error`.
const ANYWHERE: [u16; 8] = [401, 403, 404, 429, 500, 502, 503, 504];
// What GitHub answers although the description does not say so at all.
const UNDESCRIBED: [(&str, &str, u16); 1] = [
    // Two groups of one name.
    ("post", "/orgs/{org}/actions/runner-groups", 409),
];

/// An operation: method in lower case, and the path's template.
pub(crate) type Operation = (String, String);

pub(crate) struct Rest {
    document: Value,
    validators: BTreeMap<(Operation, u16), Option<Validator>>,
    requests: BTreeMap<Operation, Validator>,
    basic_error: Validator,
}

/// The description, compiled once for all tests.
pub(crate) fn rest() -> &'static Rest {
    static REST: LazyLock<Rest> = LazyLock::new(Rest::load);
    &REST
}

impl Rest {
    fn load() -> Self {
        let mut document: Value = serde_json::from_str(REST).unwrap();
        correct(&mut document);
        allow_null(&mut document);
        let compile = |schema: &Value| {
            let whole = json!({ "allOf": [schema], "components": document["components"] });
            validator(&whole)
        };
        let mut validators = BTreeMap::new();
        let mut requests = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let key = (method.clone(), path.clone());
                if let Some(schema) =
                    operation.pointer("/requestBody/content/application~1json/schema")
                {
                    requests.insert(key.clone(), compile(schema));
                }
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let response = resolve(&document, response);
                    let schema = response.pointer("/content/application~1json/schema");
                    let status = status.parse().unwrap();
                    validators.insert((key.clone(), status), schema.map(compile));
                }
            }
        }
        let basic_error = compile(&json!({ "$ref": "#/components/schemas/basic-error" }));
        Self { document, validators, requests, basic_error }
    }

    pub(crate) fn operations(&self) -> BTreeSet<Operation> {
        self.validators.keys().map(|(operation, _)| operation.clone()).collect()
    }

    /// The operation that serves `path` (without query), if GitHub has it.
    pub(crate) fn operation(&self, method: &str, path: &str) -> Option<Operation> {
        let method = method.to_lowercase();
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &str| {
            let wanted: Vec<&str> = template.split('/').collect();
            let same = |(want, part): (&&str, &&str)| want.starts_with('{') || want == part;
            // A fixed word wins over a placeholder, so the fewest placeholders are looked for.
            (wanted.len() == parts.len() && wanted.iter().zip(&parts).all(same))
                .then(|| wanted.iter().filter(|part| part.starts_with('{')).count())
        };
        let paths = self.document["paths"].as_object().unwrap();
        let found = paths
            .iter()
            .filter(|(_, methods)| methods.get(&method).is_some())
            .filter_map(|(template, _)| Some((fits(template)?, template)))
            .min()?;
        Some((method, found.1.clone()))
    }

    /// What is wrong with an answer; nothing if GitHub could have given it.
    pub(crate) fn problems(
        &self,
        at: &Operation,
        status: u16,
        body: Option<&Value>,
    ) -> Vec<String> {
        let known = self.validators.get(&(at.clone(), status));
        let undescribed = UNDESCRIBED.contains(&(at.0.as_str(), at.1.as_str(), status));
        let schema = match known {
            Some(schema) => schema.as_ref(),
            None if ANYWHERE.contains(&status) || undescribed => Some(&self.basic_error),
            None if status == 304 => None,
            None => return vec![format!("GitHub does not answer {status} here")],
        };
        match (schema, body) {
            (Some(schema), Some(body)) => errors(schema, body),
            (None, None) => Vec::new(),
            (Some(_), None) => vec!["there is no body".into()],
            (None, Some(_)) => vec!["there is a body".into()],
        }
    }

    /// What is wrong with a request's body.
    pub(crate) fn request_problems(&self, at: &Operation, body: &Value) -> Vec<String> {
        self.requests.get(at).map_or(Vec::new(), |schema| errors(schema, body))
    }
}

pub(crate) struct Webhooks(BTreeMap<String, Validator>);

impl Webhooks {
    pub(crate) fn load() -> Self {
        let document: Value = serde_json::from_str(WEBHOOKS).unwrap();
        let definitions = document["definitions"].as_object().unwrap();
        let names = definitions.keys().filter(|name| name.contains('$'));
        let compiled = names.map(|name| {
            let reference = json!({ "$ref": format!("#/definitions/{name}") });
            let whole = json!({ "allOf": [reference], "definitions": definitions });
            (name.clone(), validator(&whole))
        });
        Self(compiled.collect())
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// The name of what this is, and what is wrong with it.
    pub(crate) fn problems(&self, event: &str, body: &Value) -> (String, Vec<String>) {
        let kind = body["action"].as_str().unwrap_or("event");
        let name = format!("{event}${kind}");
        let problems = match self.0.get(&name) {
            Some(schema) => errors(schema, body),
            None => vec!["GitHub sends no such webhook".into()],
        };
        (name, problems)
    }
}

fn validator(schema: &Value) -> Validator {
    jsonschema::draft7::options().should_validate_formats(true).build(schema).unwrap()
}

fn errors(schema: &Validator, body: &Value) -> Vec<String> {
    let errors = schema.iter_errors(body);
    errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => node,
    }
}

/// One slip of the description: a listed installation's account would have to be a user and an
/// enterprise at once, while everywhere else (`installation`) it is one or the other.
fn correct(document: &mut Value) {
    let account = "/paths/~1app~1installations/get/responses/200/content/application~1json\
                   /schema/items/properties/account";
    let account = document.pointer_mut(account).and_then(Value::as_object_mut).unwrap();
    let both = account.remove("allOf").expect("the slip is still there");
    account.insert("anyOf".into(), both);
}

/// `OpenAPI` 3.0's `nullable` in JSON Schema's words; the only place where the two differ here.
fn allow_null(node: &mut Value) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(allow_null),
        Value::Object(map) => {
            map.values_mut().for_each(allow_null);
            if map.get("nullable") == Some(&json!(true)) {
                map.remove("nullable");
                *node = with_null(map);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn with_null(map: &Map<String, Value>) -> Value {
    let mut map = map.clone();
    let Some(kind) = map.get("type").cloned() else {
        return json!({ "anyOf": [{ "type": "null" }, map] });
    };
    map.insert("type".into(), json!([kind, "null"]));
    if let Some(Value::Array(allowed)) = map.get_mut("enum") {
        allowed.push(Value::Null);
    }
    Value::Object(map)
}
