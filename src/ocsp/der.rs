//! The encoding of questions and answers (DER, X.690): elements of a tag and what is inside. Pure.

/// Tags.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BITS: u8 = 0x03;
pub(super) const BYTES: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// The tag of a part that is known by its number; what is inside it has a tag of its own.
pub(super) const fn numbered(number: u8) -> u8 {
    0xa0 | number
}

/// The tag of a part that is known by its number; what is inside it is plain.
pub(super) const fn plain(number: u8) -> u8 {
    0x80 | number
}

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) inside: &'a [u8],
    /// With tag and length.
    pub(super) whole: &'a [u8],
}

/// Reads one element after the other. Nothing comes where there is none, or none that is sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next one, whatever it is.
    pub(super) fn any(&mut self) -> Option<Element<'a>> {
        let bytes = self.0;
        let (&tag, rest) = bytes.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Long tags and lengths that come later are used by nothing that is read here.
        if tag & 0x1f == 0x1f || first == 0x80 {
            return None;
        }
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (digits, rest) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() < 5)?;
            let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            // DER has one way to write a length.
            let is_shortest = length >= 0x80 && digits.first().is_some_and(|first| *first != 0);
            if !is_shortest {
                return None;
            }
            (length, rest)
        };
        let (inside, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Element { tag, inside, whole: bytes.get(..bytes.len() - rest.len())? })
    }

    /// The next one if it is of this kind. It is not passed over otherwise.
    pub(super) fn one(&mut self, tag: u8) -> Option<Element<'a>> {
        let mut ahead = *self;
        let element = ahead.any().filter(|element| element.tag == tag)?;
        *self = ahead;
        Some(element)
    }

    /// What is inside the next one, which must be of this kind.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.one(tag).map(|element| Reader(element.inside))
    }

    /// The bits of the next one, which must be whole bytes.
    pub(super) fn bits(&mut self) -> Option<&'a [u8]> {
        self.one(BITS)?.inside.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
    }

    /// Whether nothing comes any more.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes an element of these parts.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
    match (length, u8::try_from(digits.len())) {
        (0..0x80, _) => bytes.push(digits.first().copied().unwrap_or(0)),
        (_, count) => {
            bytes.push(0x80 | count.unwrap_or(0));
            bytes.extend(digits);
        }
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let inside = vec![7; length];
            let bytes = [element(BYTES, &[&inside]), element(INTEGER, &[&[1]])].concat();
            let mut reader = Reader(&bytes);
            assert_eq!(reader.one(INTEGER), None);
            let read = reader.one(BYTES).unwrap();
            assert_eq!((read.inside, read.whole.len() + 3), (&inside[..], bytes.len()), "{length}");
            assert_eq!(reader.any().map(|element| element.inside), Some(&[1][..]));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn what_is_not_sound_is_nothing() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81],
            &[0x30, 0x82, 1, 0],
            &[0x30, 0x81, 1, 0],
            &[0x30, 0x82, 0, 1, 0],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0],
            &[0x30, 0xff, 0],
            &[0x1f, 1, 0],
        ] {
            assert_eq!(Reader(bytes).any(), None, "{bytes:x?}");
        }
        assert_eq!(Reader(&[BITS, 2, 1, 0xfe]).bits(), None);
        assert_eq!(Reader(&[BITS, 2, 0, 0xfe]).bits(), Some(&[0xfe][..]));
    }
}
