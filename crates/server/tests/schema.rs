//! The JSON Schema of a fleet file: what is published is what the program prints, good files are good by
//! it, and misspelt keys and values of another type are not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use jsonschema::Validator;
use remuda_core::fleet::{Absent, SCHEMA, Source, parse};
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

fn published() -> Value {
    serde_json::from_str(&text("docs/fleet.schema.json")).unwrap()
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&published()).unwrap()
}

#[test]
fn what_is_published_is_what_the_program_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_remuda")).arg("schema").output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed == text("docs/fleet.schema.json"),
        "run: remuda schema > docs/fleet.schema.json"
    );
}

/// Every object within that describes a table of named keys.
fn tables<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
    match schema {
        Value::Object(object) => {
            if object.get("type") == Some(&json!("object")) {
                found.push(schema);
            }
            object.values().for_each(|value| tables(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| tables(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn it_is_a_schema_that_knows_every_key_and_lets_no_other_through() {
    let schema = published();
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    let mut found = Vec::new();
    tables(&schema, &mut found);
    assert!(found.len() > SCHEMA.len(), "{}", found.len());
    for table in found {
        // Tables whose keys the file chooses say what stands under any of them.
        let others = &table["additionalProperties"];
        assert!(others == false || others.is_object(), "{table:#}");
    }
    for section in SCHEMA.into_iter().filter(|section| !section.path.is_empty()) {
        let drawn = &schema["$defs"][section.path];
        for key in section.keys.iter().filter(|key| !key.example.is_empty()) {
            let property = match &drawn["properties"][key.name] {
                Value::Null => &drawn["additionalProperties"],
                property => property,
            };
            let about = property["description"].as_str().unwrap();
            assert!(about.starts_with(key.about), "{}.{}", section.path, key.name);
            let means = matches!(key.absent, Absent::Means(_));
            assert_eq!(property.get("default").is_some(), means, "{}.{}", section.path, key.name);
        }
    }
}

/// Every fleet file, and part of one, that the repository shows; the whole ones before the parts.
fn shown() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repository().join("examples")).unwrap().flatten() {
        let name = format!("examples/{}", entry.file_name().display());
        if entry.path().extension().is_some_and(|extension| extension == "toml") {
            found.push((name.clone(), text(&name)));
        }
    }
    for name in ["README.md", "docs/fleet.md", "docs/manual.md"] {
        for block in text(name).split("```toml\n").skip(1) {
            found.push((name.into(), block.split("```").next().unwrap().into()));
        }
    }
    found
}

fn tree(toml: &str) -> Value {
    toml::from_str(toml).unwrap()
}

#[test]
fn every_fleet_that_is_shown_is_good_by_it() {
    let (validator, shown) = (validator(), shown());
    assert!(shown.len() > 10, "{}", shown.len());
    for (name, toml) in shown {
        if let Err(error) = validator.validate(&tree(&toml)) {
            panic!("{name}: {}: {error}\n{toml}", error.instance_path());
        }
    }
}

#[test]
fn every_example_and_default_of_a_key_is_good_by_it() {
    let mut seen = 0;
    for (path, section) in published()["$defs"].as_object().unwrap() {
        for (name, property) in section["properties"].as_object().unwrap() {
            let mut only = published();
            only["$ref"] = json!(format!("#/$defs/{path}/properties/{name}"));
            for field in ["properties", "type", "additionalProperties"] {
                only.as_object_mut().unwrap().remove(field);
            }
            let validator = jsonschema::draft202012::new(&only).unwrap();
            let values = property["examples"].as_array().into_iter().flatten();
            for value in values.chain(property.get("default")) {
                assert!(validator.is_valid(value), "{path}.{name}: {value}");
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "{seen}");
}

/// A place in a tree: the keys and numbers that lead there.
type Place = Vec<String>;

/// The places of all values whose keys the schema names or the file chooses, and which of the two.
fn places(value: &Value, at: &Place, found: &mut Vec<(Place, bool)>) {
    let words: Vec<&str> = at.iter().map(String::as_str).collect();
    let own = matches!(
        &*words,
        ["forge" | "provider" | "image" | "template" | "pool" | "pool_matrix" | "tenant"]
            | [.., "axes" | "maps" | "env" | "needs" | "capacity"]
            | [.., "maps" | "exclude", _]
    );
    let below = |name: &str| at.iter().cloned().chain([name.to_owned()]).collect();
    for (name, value) in value.as_object().into_iter().flatten() {
        found.push((below(name), own));
        places(value, &below(name), found);
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        places(value, &below(&index.to_string()), found);
    }
}

fn at<'a>(tree: &'a mut Value, place: &[String]) -> &'a mut Value {
    place.iter().fold(tree, |value, step| match step.parse::<usize>() {
        Ok(index) if value.is_array() => &mut value[index],
        Ok(_) | Err(_) => &mut value[step.as_str()],
    })
}

/// `word` with each of its letters lost, and each doubled.
fn misspellings(word: &str) -> Vec<String> {
    let without = |at: usize| format!("{}{}", &word[..at], &word[at + 1..]);
    let doubled = |at: usize| format!("{}{}", &word[..=at], &word[at..]);
    (0..word.len()).flat_map(|at| [without(at), doubled(at)]).collect()
}

/// True if the reader of fleets has nothing against it.
fn read(tree: &Value) -> bool {
    let text = toml::to_string(tree).unwrap();
    parse(&[Source { name: "fleet.toml", text: &text }]).is_ok()
}

#[test]
fn every_misspelt_key_is_refused() {
    let (validator, mut tried) = (validator(), 0);
    for (name, toml) in shown() {
        let (tree, mut found) = (tree(&toml), Vec::new());
        places(&tree, &Vec::new(), &mut found);
        for (place, _) in found.iter().filter(|(_, own)| !own) {
            let (key, table) = place.split_last().unwrap();
            for word in misspellings(key) {
                let known = |section: &&remuda_core::fleet::Section| {
                    section.keys.iter().any(|key| key.name == word)
                };
                let mut tree = tree.clone();
                let table = at(&mut tree, table).as_object_mut().unwrap();
                let value = table.remove(key).unwrap();
                if word.is_empty() || SCHEMA.iter().any(known) || table.contains_key(&word) {
                    continue;
                }
                table.insert(word.clone(), value);
                assert!(!validator.is_valid(&tree), "{name}: {place:?} as {word}");
                assert!(tried % 7 > 0 || !read(&tree), "{name}: {place:?} as {word} is read");
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn every_value_of_another_type_is_refused() {
    let (validator, mut tried) = (validator(), 0);
    let others = [
        ("boolean", json!(true)),
        ("integer", json!(5)),
        ("float", json!(2.5)),
        ("string", json!("no no")),
        ("array", json!([[true]])),
        ("table", json!({ "zz": true })),
    ];
    for (name, toml) in shown() {
        let (tree, mut found) = (tree(&toml), Vec::new());
        places(&tree, &Vec::new(), &mut found);
        for (place, _) in found {
            let kind = match tree.clone().pointer(&format!("/{}", place.join("/"))).unwrap() {
                Value::Bool(_) => "boolean",
                Value::Number(number) if number.is_f64() => "float",
                Value::Number(_) => "integer",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "table",
                Value::Null => unreachable!("TOML has none"),
            };
            for (other, value) in &others {
                let fits = match place.last().unwrap().as_str() {
                    "id" | "cap" | "budget" => *other == "integer",
                    "cpu" => matches!(*other, "integer" | "float"),
                    // A value of an axis stands for a list of one.
                    _ => place.iter().any(|step| step == "exclude") && *other == "string",
                };
                if *other == kind || fits {
                    continue;
                }
                let mut tree = tree.clone();
                *at(&mut tree, &place) = value.clone();
                assert!(!validator.is_valid(&tree), "{name}: {place:?} = {value}");
                assert!(tried % 7 > 0 || !read(&tree), "{name}: {place:?} = {value} is read");
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "{tried}");
}
