//! Values of header fields that are made anew for each message: text with variables in it, named as GoDoxy names them.

use std::fmt;

use super::is_token;

/// What a variable stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `$req_method`.
    RequestMethod,
    /// `$req_scheme`: `http` or `https`, as the client spoke it.
    RequestScheme,
    /// `$req_host`: the host that was asked for, without a port.
    RequestHost,
    /// `$req_port`: the port that was named with it.
    RequestPort,
    /// `$req_addr`: host and port, as they were named.
    RequestAddress,
    /// `$req_path`: the path without query.
    RequestPath,
    /// `$req_query`: what follows the `?`.
    RequestQuery,
    /// `$req_uri`: path and query.
    RequestUri,
    /// `$req_url`: the same, with scheme and host in front.
    RequestUrl,
    /// `$remote_host`: the address of the client, behind the proxies that are believed.
    RemoteHost,
    /// `$remote_port`: its port, where it is known.
    RemotePort,
    /// `$remote_addr`: address and port.
    RemoteAddress,
    /// `$upstream_name`: the alias of the route.
    UpstreamName,
    /// `$upstream_scheme`: what is spoken to the endpoint.
    UpstreamScheme,
    /// `$upstream_host`: the address of the endpoint.
    UpstreamHost,
    /// `$upstream_port`: its port.
    UpstreamPort,
    /// `$upstream_addr`: address and port.
    UpstreamAddress,
    /// `$upstream_url`: the same, with the scheme in front.
    UpstreamUrl,
    /// `$status_code` of the answer.
    Status,
    /// `$header(Name)` of the request; also `$req_content_type` and `$req_content_length`.
    Header(String),
    /// `$resp_header(Name)` of the answer; also `$resp_content_type` and `$resp_content_length`.
    ResponseHeader(String),
    /// `$arg(name)` of the query, without its escapes.
    Argument(String),
}

use Variable::{
    RemoteAddress, RemoteHost, RemotePort, RequestAddress, RequestHost, RequestMethod, RequestPath, RequestPort,
    RequestQuery, RequestScheme, RequestUri, RequestUrl, Status, UpstreamAddress, UpstreamHost, UpstreamName,
    UpstreamPort, UpstreamScheme, UpstreamUrl,
};

/// Those without an argument, by their names.
const PLAIN: [(&str, Variable); 19] = [
    ("req_method", RequestMethod),
    ("req_scheme", RequestScheme),
    ("req_host", RequestHost),
    ("req_port", RequestPort),
    ("req_addr", RequestAddress),
    ("req_path", RequestPath),
    ("req_query", RequestQuery),
    ("req_uri", RequestUri),
    ("req_url", RequestUrl),
    ("remote_host", RemoteHost),
    ("remote_port", RemotePort),
    ("remote_addr", RemoteAddress),
    ("upstream_name", UpstreamName),
    ("upstream_scheme", UpstreamScheme),
    ("upstream_host", UpstreamHost),
    ("upstream_port", UpstreamPort),
    ("upstream_addr", UpstreamAddress),
    ("upstream_url", UpstreamUrl),
    ("status_code", Status),
];

/// Those that are header fields by a name of their own: of the answer, and which.
const FIELDS: [(&str, bool, &str); 4] = [
    ("req_content_type", false, "content-type"),
    ("req_content_length", false, "content-length"),
    ("resp_content_type", true, "content-type"),
    ("resp_content_length", true, "content-length"),
];

/// A variable out of its argument.
type Call = fn(String) -> Variable;

/// Those with an argument.
const CALLS: [(&str, Call); 3] =
    [("header", Variable::Header), ("resp_header", Variable::ResponseHeader), ("arg", Variable::Argument)];

/// The names of all variables.
pub fn variable_names() -> impl Iterator<Item = &'static str> {
    let fields = FIELDS.iter().map(|(name, ..)| *name);
    PLAIN.iter().map(|(name, _)| *name).chain(fields).chain(CALLS.iter().map(|(name, _)| *name))
}

impl Variable {
    /// Whether it is known only once the answer is there.
    pub fn is_of_answer(&self) -> bool {
        matches!(self, Self::Status | Self::ResponseHeader(_))
    }

    /// Whether it is known only of a request that goes to an endpoint.
    pub fn is_of_way(&self) -> bool {
        matches!(self, Self::UpstreamHost | Self::UpstreamPort | Self::UpstreamAddress | Self::UpstreamUrl)
    }
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Written as it is.
    Text(String),
    /// Written as what it stands for.
    Variable(Variable),
}

/// A value of a header field: text, with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue(Vec<Piece>);

/// As it is written.
impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = PLAIN.iter().find(|(_, variable)| variable == self) {
            return write!(f, "${name}");
        }
        let calls = [
            if let Self::Header(name) = self { Some(("header", name)) } else { None },
            if let Self::ResponseHeader(name) = self { Some(("resp_header", name)) } else { None },
            if let Self::Argument(name) = self { Some(("arg", name)) } else { None },
        ];
        calls.into_iter().flatten().try_for_each(|(call, name)| write!(f, "${call}({name})"))
    }
}

/// As it is written.
impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace('$', "$$")),
            Piece::Variable(variable) => variable.fmt(f),
        })
    }
}

/// Why a text is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoVariable {
    /// There is no variable of this name.
    Unknown(String),
    /// This begins with a digit, as no variable does.
    Digit(String),
    /// This one needs the name of a field or argument in parentheses.
    Argument(&'static str),
}

impl FieldValue {
    /// Reads a text. A `$` that no name follows stands for itself, and `$$` for one.
    ///
    /// # Errors
    /// A variable that there is none of, or one that lacks its argument.
    pub fn read(text: &str) -> Result<Self, NoVariable> {
        let mut pieces = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some((before, behind)) = rest.split_once('$') {
            plain.push_str(before);
            let length = behind.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            let (name, after) = behind.split_at(length);
            rest = match name {
                "" => {
                    plain.push('$');
                    behind.strip_prefix('$').unwrap_or(behind)
                }
                name => {
                    let (variable, after) = variable(name, after)?;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Variable(variable));
                    after
                }
            };
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Its parts, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Its variables.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable(variable) => Some(variable),
        })
    }

    /// The text that it always is; none: it has variables.
    pub fn as_text(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// The variable of this name, and what follows it.
fn variable<'a>(name: &str, after: &'a str) -> Result<(Variable, &'a str), NoVariable> {
    if let Some((_, variable)) = PLAIN.iter().find(|(known, _)| *known == name) {
        return Ok((variable.clone(), after));
    }
    if let Some((_, of_answer, field)) = FIELDS.iter().find(|(known, ..)| *known == name) {
        let make = if *of_answer { Variable::ResponseHeader } else { Variable::Header };
        return Ok((make((*field).to_owned()), after));
    }
    let Some((name, make)) = CALLS.iter().find(|(known, _)| *known == name) else {
        let begins_with_digit = name.starts_with(|first: char| first.is_ascii_digit());
        let why = if begins_with_digit { NoVariable::Digit } else { NoVariable::Unknown };
        return Err(why(name.to_owned()));
    };
    let inside = after.strip_prefix('(').and_then(|after| after.split_once(')'));
    match inside.filter(|(argument, _)| is_token(argument)) {
        Some((argument, after)) => Ok((make(argument.to_owned()), after)),
        None => Err(NoVariable::Argument(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn values_are_text_and_variables() {
        let read = |text: &str| FieldValue::read(text).unwrap().0;
        assert_eq!(read("plain"), [text("plain")]);
        assert_eq!(read(""), []);
        assert_eq!(read("5 $ and $$req_host$"), [text("5 $ and $req_host$")]);
        let both =
            [Piece::Variable(RemoteHost), text(", "), Piece::Variable(Variable::Header("X-A".into())), text("!")];
        assert_eq!(read("$remote_host, $header(X-A)!"), both);
        assert_eq!(read("$req_content_type"), [Piece::Variable(Variable::Header("content-type".into()))]);
        assert_eq!(
            read("a=$arg(a)$status_code"),
            [text("a="), Piece::Variable(Variable::Argument("a".into())), Piece::Variable(Status)]
        );
    }

    #[test]
    fn what_is_no_variable_is_told() {
        for (text, expected) in [
            ("$req_hots", NoVariable::Unknown("req_hots".into())),
            ("a$USER", NoVariable::Unknown("USER".into())),
            ("$5 or 5$", NoVariable::Digit("5".into())),
            ("$header", NoVariable::Argument("header")),
            ("$header()", NoVariable::Argument("header")),
            ("$arg(a b)", NoVariable::Argument("arg")),
            ("$resp_header(a", NoVariable::Argument("resp_header")),
        ] {
            assert_eq!(FieldValue::read(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn each_name_is_a_variable() {
        for name in variable_names() {
            let read = FieldValue::read(&format!("${name}")).or_else(|_| FieldValue::read(&format!("${name}(x)")));
            let read = read.unwrap();
            assert_eq!(read.variables().count(), 1, "{name}");
            assert_eq!(FieldValue::read(&read.to_string()), Ok(read), "{name}");
        }
    }
}
