//! The grammar of label selectors in text form.

use super::SelectorError;
use super::labels::{Operator, Requirement, check_key};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.split().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.rest = rest;
        token
    }

    fn split(&self) -> (Token<'a>, &'a str) {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        for symbol in ["==", "!=", "=", "!", "(", ")", ",", ">", "<"] {
            if let Some(rest) = text.strip_prefix(symbol) {
                return (Token::Symbol(symbol), rest);
            }
        }
        let end = text.find(|c: char| "=!(),<> \t\r\n".contains(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        (if word.is_empty() { Token::End } else { Token::Word(word) }, rest)
    }

    fn unexpected<T>(token: Token<'_>, expected: &str) -> Result<T, SelectorError> {
        Err(SelectorError::new(format_args!("found '{}', expected: {expected}", token.text())))
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.peek() == Token::Symbol("!");
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Self::unexpected(other, "identifier"),
        };
        check_key(key)?;
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            let operator = if absent { Operator::DoesNotExist } else { Operator::Exists };
            return Requirement::new(key, operator, Vec::new());
        }
        if absent {
            return Self::unexpected(self.peek(), "',' or 'end of string'");
        }
        let (operator, values) = match self.next() {
            Token::Symbol("=" | "==") => (Operator::In, self.value()?),
            Token::Symbol("!=") => (Operator::NotIn, self.value()?),
            Token::Symbol(">") => (Operator::GreaterThan, self.value()?),
            Token::Symbol("<") => (Operator::LessThan, self.value()?),
            Token::Word("in") => (Operator::In, self.values()?),
            Token::Word("notin") => (Operator::NotIn, self.values()?),
            other => return Self::unexpected(other, "in, notin, =, ==, !=, gt, lt"),
        };
        Requirement::new(key, operator, values)
    }

    fn value(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(vec![String::new()]),
            Token::Word(word) => {
                self.next();
                Ok(vec![word.to_owned()])
            }
            other => Self::unexpected(other, "identifier"),
        }
    }

    /// `(a,b)`. An empty place between commas or parentheses is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Self::unexpected(other, "'('"),
        }
        let mut values = Vec::new();
        loop {
            let value = match self.peek() {
                Token::Word(word) => {
                    self.next();
                    word
                }
                _ => "",
            };
            values.push(value.to_owned());
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return Self::unexpected(other, "',' or ')'"),
            }
        }
    }
}

/// Reads a label selector.
pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { rest: text };
    let mut requirements = Vec::new();
    if parser.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        let requirement =
            parser.requirement().map_err(|e| SelectorError::new(format_args!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") if matches!(parser.peek(), Token::Word(_) | Token::Symbol("!")) => {}
            Token::Symbol(",") => return Parser::unexpected(parser.peek(), "identifier after ','"),
            other => return Parser::unexpected(other, "',' or 'end of string'"),
        }
    }
}
