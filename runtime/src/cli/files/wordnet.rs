//! Converts WordNet 3's data files to concepts: one record for each synset.
//!
//! The format is wndb(5WN): licence lines that start with spaces, then one line for each synset. A key is the letter of
//! the file's part of speech and the synset's offset, as pointers write it: `n00001740`. A satellite adjective keeps
//! the `a` of its file, and its register `pos` is `satellite`. `words` and each relation are OR-sets, `gloss` is a
//! register. The word numbers of lexical pointers and the lexicographer files are dropped.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Content, Field, Row};

/// The data files, each with the letter of its part of speech.
pub(super) const FILES: [(&str, char); 4] =
    [("data.noun", 'n'), ("data.verb", 'v'), ("data.adj", 'a'), ("data.adv", 'r')];

/// The pointer symbols of wninput(5WN), each with the field for its targets.
const RELATIONS: [(&str, &str); 26] = [
    ("!", "antonym"),
    ("@", "hypernym"),
    ("@i", "instance_hypernym"),
    ("~", "hyponym"),
    ("~i", "instance_hyponym"),
    ("#m", "member_holonym"),
    ("#s", "substance_holonym"),
    ("#p", "part_holonym"),
    ("%m", "member_meronym"),
    ("%s", "substance_meronym"),
    ("%p", "part_meronym"),
    ("=", "attribute"),
    ("+", "derivationally_related"),
    (";c", "topic_domain"),
    ("-c", "topic_member"),
    (";r", "region_domain"),
    ("-r", "region_member"),
    (";u", "usage_domain"),
    ("-u", "usage_member"),
    ("*", "entailment"),
    (">", "cause"),
    ("^", "also_see"),
    ("$", "verb_group"),
    ("&", "similar_to"),
    ("<", "participle_of"),
    ("\\", "pertainym"),
];

/// The record of one line in the data file with this letter.
///
/// # Errors
///
/// The defect of the line.
pub(super) fn concept(letter: char, line: &str) -> Result<Row, String> {
    let (head, gloss) = line.split_once(" | ").ok_or("there is no ` | ` before a gloss")?;
    let mut words = Words(head.split_ascii_whitespace());
    let offset = words.offset()?;
    words.number("lexicographer file", 10, 2)?;
    let pos = pos(letter, words.next("part of speech")?)?;
    let mut fields = Fields::default();
    let members = lemmas(&mut words, letter, &mut fields)?;
    pointers(&mut words, &mut fields)?;
    if letter == 'v' {
        frames(&mut words, &members, &mut fields)?;
    }
    if let Some(rest) = words.0.next() {
        return Err(format!("{rest:?} stands where the gloss should begin"));
    }
    let register = |field: &'static str, value: &str| Field {
        field: Bytes::from_static(field.as_bytes()),
        content: Content::Register(vec![Bytes::copy_from_slice(value.as_bytes())]),
    };
    let mut all = vec![register("gloss", gloss.trim()), register("pos", pos)];
    all.extend(fields.sets());
    Ok(Row { key: format!("{letter}{offset}").into(), fields: all })
}

/// The part of speech, which must fit the file.
fn pos(letter: char, kind: &str) -> Result<&'static str, String> {
    match (letter, kind) {
        ('n', "n") => Ok("noun"),
        ('v', "v") => Ok("verb"),
        ('a', "a") => Ok("adjective"),
        ('a', "s") => Ok("satellite"),
        ('r', "r") => Ok("adverb"),
        _ => Err(format!("the part of speech {kind:?} does not belong into this file")),
    }
}

/// The words of the synset, with spaces for `_`. An adjective's marker goes to the field `position`.
fn lemmas<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    letter: char,
    fields: &mut Fields,
) -> Result<Vec<String>, String> {
    let count = words.number("number of words", 16, 2)?;
    if count == 0 {
        return Err("the synset has no words".into());
    }
    let mut lemmas = Vec::new();
    for _ in 0..count {
        let mut word = words.next("word")?;
        if letter == 'a'
            && let Some((bare, marker)) =
                word.strip_suffix(')').and_then(|word| word.rsplit_once('('))
        {
            if !["p", "a", "ip"].contains(&marker) {
                return Err(format!("{word:?} has an unknown marker"));
            }
            fields.add("position", format!("{} {marker}", bare.replace('_', " ")));
            word = bare;
        }
        words.number("lexical id", 16, 1)?;
        lemmas.push(word.replace('_', " "));
    }
    lemmas.iter().for_each(|lemma| fields.add("words", lemma.clone()));
    Ok(lemmas)
}

/// The pointers: each is a relation to another concept's key.
fn pointers<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    fields: &mut Fields,
) -> Result<(), String> {
    for _ in 0..words.number("number of pointers", 10, 3)? {
        let symbol = words.next("pointer symbol")?;
        let relation = RELATIONS.iter().find(|(found, _)| *found == symbol);
        let (_, field) =
            relation.ok_or_else(|| format!("the pointer symbol {symbol:?} is not known"))?;
        let offset = words.offset()?;
        let letter = match words.next("pointer's part of speech")? {
            "s" => "a",
            letter @ ("n" | "v" | "a" | "r") => letter,
            other => return Err(format!("a pointer names the part of speech {other:?}")),
        };
        words.number("pointer's word numbers", 16, 4)?;
        fields.add(field, format!("{letter}{offset}"));
    }
    Ok(())
}

/// The sentence frames of a verb: `8`, or `8 breathe` for a frame of one word.
fn frames<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    lemmas: &[String],
    fields: &mut Fields,
) -> Result<(), String> {
    for _ in 0..words.number("number of frames", 10, 2)? {
        let plus = words.next("frame")?;
        if plus != "+" {
            return Err(format!("a frame begins with {plus:?} and not with `+`"));
        }
        let frame = words.number("frame", 10, 2)?;
        match words.number("frame's word", 16, 2)? {
            0 => fields.add("frame", frame.to_string()),
            word => {
                let lemma =
                    lemmas.get(word - 1).ok_or_else(|| format!("a frame names word {word}"))?;
                fields.add("frame", format!("{frame} {lemma}"));
            }
        }
    }
    Ok(())
}

/// The sets of the record, in order.
#[derive(Debug, Default)]
struct Fields(BTreeMap<String, BTreeSet<String>>);

impl Fields {
    fn add(&mut self, field: &str, member: String) {
        self.0.entry(field.to_owned()).or_default().insert(member);
    }

    fn sets(self) -> impl Iterator<Item = Field> {
        self.0.into_iter().map(|(field, members)| Field {
            field: field.into(),
            content: Content::Set(members.into_iter().map(Bytes::from).collect()),
        })
    }
}

/// The words of a line, taken one by one.
struct Words<'a, I: Iterator<Item = &'a str>>(I);

impl<'a, I: Iterator<Item = &'a str>> Words<'a, I> {
    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("the line ends before its {what}"))
    }

    /// A number with exactly `digits` digits.
    fn number(&mut self, what: &str, radix: u32, digits: usize) -> Result<usize, String> {
        let text = self.next(what)?;
        let is_sound = text.len() == digits && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let number = is_sound.then(|| usize::from_str_radix(text, radix).ok()).flatten();
        number.ok_or_else(|| {
            format!("the {what} is {text:?} and not {digits} digits of base {radix}")
        })
    }

    fn offset(&mut self) -> Result<&'a str, String> {
        let text = self.next("offset")?;
        if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(text);
        }
        Err(format!("the offset is {text:?} and not 8 digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(letter: char, line: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
        let text = |text: Bytes| String::from_utf8_lossy(&text).into_owned();
        let row = concept(letter, line)?;
        let mut fields = BTreeMap::from([("key".to_owned(), vec![text(row.key)])]);
        for Field { field, content } in row.fields {
            let (Content::Register(values) | Content::Set(values)) = content else {
                panic!("a counter")
            };
            fields.insert(text(field), values.into_iter().map(text).collect());
        }
        Ok(fields)
    }

    #[test]
    fn a_noun_has_words_relations_and_a_gloss() {
        let line = "00002137 03 n 02 idea 0 abstract_entity 0 003 @ 00001740 n 0000 + 00692347 v 0101 \
                    + 00692348 v 0201 | a thing; \"a | b\"  ";
        let fields = read('n', line).expect("a synset");
        assert_eq!(fields["key"], ["n00002137"]);
        assert_eq!(fields["words"], ["abstract entity", "idea"]);
        assert_eq!(fields["hypernym"], ["n00001740"]);
        assert_eq!(fields["derivationally_related"], ["v00692347", "v00692348"]);
        assert_eq!(fields["gloss"], ["a thing; \"a | b\""]);
        assert_eq!(fields["pos"], ["noun"]);
        assert_eq!(fields.len(), 6);
    }

    #[test]
    fn a_verb_has_frames() {
        let line = "00001740 29 v 02 breathe 0 respire 1 000 02 + 02 00 + 08 02 | draw air";
        let fields = read('v', line).expect("a synset");
        assert_eq!(fields["frame"], ["2", "8 respire"]);
    }

    #[test]
    fn word_counts_are_hexadecimal() {
        let words: String = (0..0x1c).map(|at| format!("w{at} 0 ")).collect();
        let fields = read('n', &format!("00000001 03 n 1c {words}000 | many")).expect("a synset");
        assert_eq!(fields["words"].len(), 28);
    }

    #[test]
    fn adjectives_keep_their_letter_and_lose_their_markers() {
        let line = "00000002 00 s 03 able(p) 0 galore(ip) f plain 0 001 & 00000001 s 0000 | x";
        let fields = read('a', line).expect("a synset");
        assert_eq!(
            (&fields["key"], &fields["pos"]),
            (&vec!["a00000002".into()], &vec!["satellite".into()])
        );
        assert_eq!(fields["words"], ["able", "galore", "plain"]);
        assert_eq!(fields["position"], ["able p", "galore ip"]);
        assert_eq!(fields["similar_to"], ["a00000001"]);
    }

    #[test]
    fn an_adverb_may_point_nowhere() {
        let fields =
            read('r', "00001740 02 r 01 a_cappella 0 000 | without music").expect("a synset");
        assert_eq!(fields["words"], ["a cappella"]);
        assert_eq!(fields.len(), 4);
    }

    #[test]
    fn every_relation_has_its_field() {
        for (symbol, field) in RELATIONS {
            let line = format!("00000001 03 n 01 a 0 001 {symbol} 00000002 n 0000 | x");
            assert_eq!(read('n', &line).expect("a synset")[field], ["n00000002"]);
        }
    }

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (letter, line, what) in [
            ('n', "00000001 03 n 01 a 0 000", "no ` | `"),
            ('n', "1 03 n 01 a 0 000 | x", "8 digits"),
            ('n', "00000001 03 v 01 a 0 000 | x", "does not belong"),
            ('n', "00000001 03 n 00 000 | x", "no words"),
            ('n', "00000001 03 n 02 a 0 000 | x", "lexical id"),
            ('n', "00000001 03 n zz a 0 000 | x", "base 16"),
            ('n', "00000001 03 n 01 a 0 001 @ 00000002 n | x", "word numbers"),
            ('n', "00000001 03 n 01 a 0 001 ? 00000002 n 0000 | x", "not known"),
            ('n', "00000001 03 n 01 a 0 001 @ 00000002 q 0000 | x", "part of speech"),
            ('n', "00000001 03 n 01 a 0 000 01 + 02 00 | x", "gloss should begin"),
            ('v', "00000001 29 v 01 a 0 000 01 - 02 00 | x", "not with `+`"),
            ('v', "00000001 29 v 01 a 0 000 01 + 02 05 | x", "names word 5"),
            ('a', "00000001 00 a 01 a(zz) 0 000 | x", "marker"),
            ('n', " | ", "ends before"),
        ] {
            let error = read(letter, line).expect_err(line);
            assert!(error.contains(what), "{line}: {error}");
        }
    }
}
