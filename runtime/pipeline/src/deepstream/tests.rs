use std::io;
use std::path::Path;

use super::file::File;
use super::keys::{GROUPS, Kind};

/// Groups and keys as one text, and the problems.
fn read(name: &str, text: &[u8]) -> (String, String) {
    let (file, problems) = File::parse(Path::new(name), text);
    let mut out = String::new();
    for group in &file.groups {
        out += &format!("{}:[{}]\n", group.line, group.name);
        for entry in &group.entries {
            out += &format!("{}:{}={}\n", entry.line, entry.key, entry.value);
        }
    }
    (out, problems.iter().map(|problem| format!("{problem}\n")).collect())
}

#[test]
fn both_spellings_give_the_same_groups() {
    let key_file = "# a comment\n[osd]\nenable = 1\ntext-color=1;1;1;1;\n\n[class-attrs-all] # of all\ntopk=20 # a few\n[osd]\nfont=Serif\n";
    let yaml = "%YAML:1.0\nosd:\n  enable: 1\n  text-color: 1;1;1;1;\n  # none\nclass-attrs-all:\n  topk: 20 # a few\ntests:\n";
    let (groups, problems) = read("a.txt", key_file.as_bytes());
    assert_eq!(problems, "");
    assert_eq!(
        groups,
        "2:[osd]\n3:enable=1\n4:text-color=1;1;1;1;\n9:font=Serif\n6:[class-attrs-all]\n7:topk=20 # a few\n"
    );
    let (groups, problems) = read("a.yml", yaml.as_bytes());
    assert_eq!(problems, "");
    assert_eq!(groups, "2:[osd]\n3:enable=1\n4:text-color=1;1;1;1;\n6:[class-attrs-all]\n7:topk=20\n8:[tests]\n");
}

#[test]
fn lists_of_yaml_are_read_as_the_key_file_writes_them() {
    let (groups, problems) = read("a.yaml", b"a:\n  inferDims: [3, 256, 128]\n  files:\n    - x.yml\n    - y.yml\n");
    assert_eq!((groups.as_str(), problems.as_str()), ("1:[a]\n2:inferDims=3;256;128\n3:files=x.yml;y.yml\n", ""));
}

#[test]
fn what_cannot_be_read_is_told_with_its_line_and_the_rest_is_read() {
    let (groups, problems) = read("a.txt", b"first=1\n[osd\n[osd]\nenable\nenable=1\nenable=0\n");
    assert_eq!(groups, "3:[osd]\n5:enable=1\n");
    assert_eq!(
        problems,
        "a.txt:1: first: stands before the first `[group]`\n\
         a.txt:2: expected a group such as `[osd]`, got `[osd`\n\
         a.txt:4: expected `key=value`, `[group]` or a comment, got `enable`\n\
         a.txt:6: osd.enable: stands on line 5, too; remove one of the two\n"
    );
    for (text, problem) in [
        ("a:\n  b: &x 1\n  c: *x\n", "a.yml:3: aliases are not read; write the value out\n"),
        ("a: 1\n", "a.yml:1: a: expected keys below this group\n"),
        ("- a\n", "a.yml:1: expected groups of keys such as `osd:`\n"),
        ("a:\n  b:\n    c: 1\n", "a.yml:2: a.b: expected a plain value or a list of them\n"),
        ("a:\n  b: 1\n  b: 2\n", "a.yml:3: a.b: stands on line 2, too; remove one of the two\n"),
    ] {
        assert_eq!(read("a.yml", text.as_bytes()).1, problem, "{text}");
    }
    assert_eq!(read("a.txt", b"[a]\n\xff=1\n").1, "a.txt:2: is not a text in UTF-8\n");
}

/// Pieces that a damaged file is likely to contain, in either spelling.
const PIECES: [&[u8]; 24] = [
    b"[primary-gie]\n",
    b"[source0]",
    b"enable=1\n",
    b"=",
    b";",
    b"\\",
    b"\\;",
    b"#",
    b"\n",
    b"\r\n",
    b"]",
    b"[",
    b"osd:\n",
    b"  enable: 1\n",
    b"- ",
    b"&a ",
    b"*a",
    b"|\n",
    b"%YAML:1.0\n",
    b"---\n",
    b"? ",
    b"{",
    b"\t",
    b"\xff\xfe",
];

#[test]
fn whatever_bytes_come_reading_ends_with_problems_on_lines_that_exist() {
    bolero::check!().with_type::<(bool, Vec<Result<u8, Vec<u8>>>)>().for_each(|(yaml, pieces)| {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Ok(index) => bytes.extend(PIECES[usize::from(*index) % PIECES.len()]),
                Err(raw) => bytes.extend(raw),
            }
        }
        let name = if *yaml { "fuzz.yml" } else { "fuzz.txt" };
        let (file, problems) = File::parse(Path::new(name), &bytes);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        let on_a_line = |line: usize| (1..=lines).contains(&line);
        for problem in problems {
            assert!(problem.line.is_none_or(on_a_line), "{problem} of {lines} lines");
            assert_eq!(problem.to_string().lines().count(), 1);
        }
        for group in file.groups {
            assert!(on_a_line(group.line) && group.entries.iter().all(|entry| on_a_line(entry.line)), "{group:?}");
        }
    });
}

/// Values that a key may have, right and wrong.
const VALUES: [&str; 20] = [
    "1",
    "0",
    "-1",
    "2",
    "3",
    "4",
    "99999999999",
    "0.5",
    "x",
    "",
    "1;2;3",
    "1;2;3;4",
    "1;2;3;4;5;6;7;8",
    "a;b",
    "file://a.mp4",
    "rtsp://a/b",
    "infer.txt",
    "tracker.yml",
    "analytics.txt",
    "labels.txt",
];

/// Groups and keys of one kind of file, picked by the pieces.
fn written(kind: Kind, yaml: bool, pieces: &[(u8, u8, u8)]) -> String {
    let rules: Vec<_> = GROUPS.iter().filter(|rule| rule.kind == kind).collect();
    let mut text = String::new();
    for (place, (group, key, value)) in pieces.iter().enumerate() {
        let rule = rules[usize::from(*group) % rules.len()];
        let name = rule.name.replace('#', &(place % 3).to_string());
        let value = VALUES[usize::from(*value) % VALUES.len()];
        let key = match rule.keys.len() {
            0 => "any",
            count => rule.keys[usize::from(*key) % count].name,
        };
        let key = key.replace('#', "1").replace('*', "name");
        let enable = if kind == Kind::Tracker || key == "enable" { "" } else { "enable" };
        let lines = [(enable, "1"), (key.as_str(), value)].into_iter().filter(|(key, _)| !key.is_empty());
        text += &if yaml { format!("{name}:\n") } else { format!("[{name}]\n") };
        for (key, value) in lines {
            text += &if yaml { format!("  {key}: {value}\n") } else { format!("{key}={value}\n") };
        }
    }
    text
}

/// Also that the code asks for every key that the table says to become something: a debug assertion holds it.
#[test]
fn whatever_keys_come_converting_ends_with_a_pipeline_or_problems() {
    bolero::check!().with_type::<[Vec<(u8, u8, u8)>; 4]>().for_each(|[app, infer, tracker, analytics]| {
        let base = "[source0]\nenable=1\ntype=2\nuri=file://a.mp4\n[primary-gie]\nenable=1\nconfig-file=infer.txt\n\
                    [tracker]\nenable=1\nll-config-file=tracker.yml\n\
                    [nvds-analytics]\nenable=1\nconfig-file=analytics.txt\n[secondary-gie9]\nenable=1\nconfig-file=infer.txt\n";
        // The same group twice is one, and the same key twice a problem.
        let app = base.to_owned() + &written(Kind::App, false, app);
        let infer = "[property]\nonnx-file=m.onnx\n".to_owned() + &written(Kind::Infer, false, infer);
        let read = &mut |path: &Path| match path.to_str() {
            Some("app.txt") => Ok(app.clone().into_bytes()),
            Some("infer.txt") => Ok(infer.clone().into_bytes()),
            Some("tracker.yml") => Ok(written(Kind::Tracker, true, tracker).into_bytes()),
            Some("analytics.txt") => Ok(written(Kind::Analytics, false, analytics).into_bytes()),
            Some("labels.txt") => Ok(b"a\nb\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        match super::convert(Path::new("app.txt"), Path::new(""), read) {
            Ok(converted) => {
                assert_eq!(converted.toml.parse::<toml_edit::DocumentMut>().map(|_| ()).map_err(|error| error.to_string()), Ok(()));
                assert!(converted.notes.iter().all(|note| note.line.is_some()), "{:?}", converted.notes);
            }
            Err(problems) => assert!(!problems.problems.is_empty()),
        }
    });
}

#[test]
fn a_pattern_is_matched_to_its_end() {
    use super::keys::matched;
    for (pattern, name, found) in [
        ("source#", "source12", Some("12")),
        ("source#", "source", Some("")),
        ("source#", "source-list", None),
        ("roi-*", "roi-RF", Some("RF")),
        ("roi-*", "roi-", None),
        ("osd", "osd", Some("")),
        ("osd", "osd1", None),
    ] {
        assert_eq!(matched(pattern, name), found, "{pattern} {name}");
    }
}

#[test]
fn no_key_stands_in_a_table_twice() {
    for group in GROUPS {
        for (place, key) in group.keys.iter().enumerate() {
            let twice = group.keys[..place].iter().any(|other| other.name == key.name);
            assert!(!twice, "[{}] {}", group.name, key.name);
        }
    }
}
