//! `tidegate explain-code`: more about a code than fits into a message.

/// Tells about `code`, or lists all; whether there is such a code.
pub(crate) fn run(code: Option<&str>) -> bool {
    let Some(code) = code else {
        lang::codes().for_each(|explained| println!("{}", explained.code));
        return true;
    };
    match lang::explain_code(code) {
        Some(explained) => println!("{}\n\n{}", explained.code, explained.text),
        None => eprintln!("error: there is no code `{code}`; `tidegate explain-code` lists them"),
    }
    lang::explain_code(code).is_some()
}
