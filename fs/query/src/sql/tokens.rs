//! Ways of writing a version that the parser does not take, put as those that it takes; before anything is parsed.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::sql::references::READERS;

/// The statement's tokens without blanks. After `VERSION AS OF` the parser takes only a number: where a text stands there, it becomes `AT (VERSION => …)`.
/// After a function's arguments it takes no version at all: that of one that reads files becomes an argument.
pub(crate) fn prepared(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_blank = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let mut tokens: Vec<TokenWithSpan> = tokens.into_iter().filter(|token| !is_blank(token)).collect();
    let mut place = 0;
    while place < tokens.len() {
        if is_reader(&tokens[place..])
            && let Some(close) = closing(&tokens, place + 1)
            && let Some(clause) = Clause::at(&tokens[close + 1..])
        {
            let argument = clause.argument(&tokens[close + 1..]);
            let mut moved = vec![like(&tokens[close], Token::Comma)];
            moved.extend(argument);
            tokens.drain(close + 1..close + 1 + clause.length);
            tokens.splice(close..close, moved);
        } else if let Some(clause) =
            Clause::at(&tokens[place..]).filter(|clause| clause.is_by_text(&tokens[place..]))
        {
            let word = Word { value: "AT".into(), quote_style: None, keyword: Keyword::AT };
            let at = tokens[place].clone();
            let mut put = vec![like(&at, Token::Word(word)), like(&at, Token::LParen)];
            put.extend(clause.argument(&tokens[place..]));
            put.push(like(&at, Token::RParen));
            tokens.splice(place..place + clause.length, put);
        }
        place += 1;
    }
    tokens
}

fn like(token: &TokenWithSpan, made: Token) -> TokenWithSpan {
    TokenWithSpan { token: made, span: token.span }
}

fn is_word(token: &TokenWithSpan, keyword: Keyword) -> bool {
    matches!(&token.token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none())
}

fn is_reader(tokens: &[TokenWithSpan]) -> bool {
    let name = |word: &Word| {
        word.quote_style.is_none() && READERS.contains(&word.value.to_ascii_lowercase().as_str())
    };
    match tokens {
        [TokenWithSpan { token: Token::Word(word), .. }, open, ..] => {
            name(word) && open.token == Token::LParen
        }
        _ => false,
    }
}

/// Where the parenthesis closes that opens there.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(place),
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A clause that says a version, in some tokens.
struct Clause {
    length: usize,
    /// Where the argument begins and ends that says the same, or its value where it is to get a name.
    value: std::ops::Range<usize>,
    is_named: bool,
}

impl Clause {
    fn at(tokens: &[TokenWithSpan]) -> Option<Clause> {
        let is = |place: usize, keyword| tokens.get(place).is_some_and(|token| is_word(token, keyword));
        let is_value = |place: usize| {
            let value = tokens.get(place).map(|token| &token.token);
            matches!(value, Some(Token::SingleQuotedString(_) | Token::Number(..)))
        };
        let is_clause = (is(0, Keyword::VERSION) || is(0, Keyword::TIMESTAMP))
            && is(1, Keyword::AS)
            && is(2, Keyword::OF);
        if is_clause {
            // TIMESTAMP AS OF TIMESTAMP '…'
            let end = if is(3, Keyword::TIMESTAMP) { 5 } else { 4 };
            return is_value(end - 1).then_some(Clause { length: end, value: 3..end, is_named: false });
        }
        let is_at = is(0, Keyword::AT)
            && tokens.get(1).is_some_and(|token| token.token == Token::LParen)
            && (is(2, Keyword::VERSION) || is(2, Keyword::TIMESTAMP))
            && tokens.get(3).is_some_and(|token| matches!(token.token, Token::RArrow | Token::Assignment));
        let close = is_at.then(|| closing(tokens, 1)).flatten()?;
        Some(Clause { length: close + 1, value: 2..close, is_named: true })
    }

    /// Whether it is one of those that the parser takes only with a number.
    fn is_by_text(&self, tokens: &[TokenWithSpan]) -> bool {
        !self.is_named
            && is_word(&tokens[0], Keyword::VERSION)
            && matches!(tokens[self.value.start].token, Token::SingleQuotedString(_))
    }

    /// `VERSION => 42`
    fn argument(&self, tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
        let mut argument = Vec::new();
        if !self.is_named {
            argument.extend([tokens[0].clone(), like(&tokens[0], Token::RArrow)]);
        }
        argument.extend_from_slice(&tokens[self.value.clone()]);
        argument
    }
}
