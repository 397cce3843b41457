//! The key files of GLib: groups in brackets, `key=value` lines, comments that begin with `#`.

use super::file::Reader;

/// Longer than any key or name of a group; what is longer is not quoted in messages.
const QUOTED_CHARACTERS_MAX: usize = 40;

pub(super) fn read(text: &str, reader: &mut Reader) {
    let mut group = None;
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            match rest.split_once(']') {
                // What follows a name is a comment in practice, though GLib refuses it.
                Some((name, after)) if !name.is_empty() && (after.is_empty() || after.trim().starts_with('#')) => {
                    group = Some(reader.group(name, number));
                }
                _ => reader.problem(
                    Some(number),
                    "",
                    format!("expected a group such as `[osd]`, got `{}`", quoted(line)),
                ),
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            reader.problem(
                Some(number),
                "",
                format!("expected `key=value`, `[group]` or a comment, got `{}`", quoted(line)),
            );
            continue;
        };
        match group {
            Some(group) => reader.entry(group, key.trim(), unescaped(value.trim()), number),
            None => reader.problem(Some(number), key.trim(), "stands before the first `[group]`"),
        }
    }
}

/// `\s`, `\n`, `\t`, `\r` and `\\` stand for what GLib says; every other backslash stays, `\;` for the list's reader.
fn unescaped(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        let escape = (character == '\\').then(|| characters.peek()).flatten();
        let meant = match escape {
            Some('s') => ' ',
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('\\') => '\\',
            _ => {
                plain.push(character);
                continue;
            }
        };
        plain.push(meant);
        characters.next();
    }
    plain
}

fn quoted(line: &str) -> String {
    let start: String = line.chars().take(QUOTED_CHARACTERS_MAX).collect();
    if start.len() < line.len() { format!("{start}…") } else { start }
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn the_escapes_of_glib_are_read() {
        for (written, meant) in [
            ("a\\sb", "a b"),
            ("\\\\srv\\x", "\\srv\\x"),
            ("a\\;b", "a\\;b"),
            ("ends with \\", "ends with \\"),
            ("\\n\\t\\r", "\n\t\r"),
        ] {
            assert_eq!(unescaped(written), meant, "{written}");
        }
    }
}
