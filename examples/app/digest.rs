//! The two hashes that HTTP tests and WebSocket handshakes need.

const ROUNDS: [u32; 64] = rounds();

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
const fn rounds() -> [u32; 64] {
    let mut constants = [0; 64];
    let (mut found, mut candidate) = (0, 2_u128);
    while found < 64 {
        if is_prime(candidate) {
            constants[found] = fraction_of_root(candidate, true);
            found += 1;
        }
        candidate += 1;
    }
    constants
}

const fn is_prime(number: u128) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    true
}

/// By bisection over whole numbers scaled by 2^32.
#[allow(clippy::cast_possible_truncation, reason = "the low 32 bits are the fraction")]
const fn fraction_of_root(number: u128, is_cube: bool) -> u32 {
    let (mut low, mut high) = (0_u128, 1 << 38);
    while high - low > 1 {
        let middle = (low + high) / 2;
        let (power, bound) =
            if is_cube { (middle * middle * middle, number << 96) } else { (middle * middle, number << 64) };
        if power <= bound { low = middle } else { high = middle }
    }
    low as u32
}

pub(crate) struct Sha256 {
    state: [u32; 8],
    waiting: Vec<u8>,
    length: u64,
}

impl Sha256 {
    pub(crate) fn new() -> Self {
        let primes = [2, 3, 5, 7, 11, 13, 17, 19];
        Self { state: primes.map(|prime| fraction_of_root(prime, false)), waiting: Vec::new(), length: 0 }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
        let whole = self.waiting.len() / 64 * 64;
        let rest = self.waiting.split_off(whole);
        for block in self.waiting.as_chunks::<64>().0 {
            mix256(&mut self.state, block);
        }
        self.waiting = rest;
    }

    pub(crate) fn finish(mut self) -> String {
        let bits = self.length * 8;
        let zeros = (119 - usize::try_from(self.length % 64).unwrap_or(0)) % 64;
        let mut end = vec![0x80];
        end.resize(1 + zeros, 0);
        end.extend(bits.to_be_bytes());
        self.add(&end);
        self.state.iter().map(|word| format!("{word:08x}")).collect()
    }
}

fn words(block: &[u8; 64]) -> impl Iterator<Item = u32> {
    block.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word))
}

fn mix256(state: &mut [u32; 8], block: &[u8; 64]) {
    let mut w = [0_u32; 64];
    w.iter_mut().zip(words(block)).for_each(|(to, from)| *to = from);
    for i in 16..64 {
        let small0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
        let small1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16].wrapping_add(small0).wrapping_add(w[i - 7]).wrapping_add(small1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (constant, word) in ROUNDS.iter().zip(w) {
        let big1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let one = h.wrapping_add(big1).wrapping_add(choice).wrapping_add(*constant).wrapping_add(word);
        let big0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let two = big0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));
    }
    state.iter_mut().zip([a, b, c, d, e, f, g, h]).for_each(|(to, from)| *to = to.wrapping_add(from));
}

/// The answer to a WebSocket handshake: SHA-1 of the key and a fixed text, in base 64.
pub(crate) fn accept_key(key: &str) -> String {
    base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

fn sha1(text: &[u8]) -> Vec<u8> {
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).div_ceil(64) * 64 - 8, 0);
    padded.extend((text.len() as u64 * 8).to_be_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.as_chunks::<64>().0 {
        let mut w = [0_u32; 80];
        w.iter_mut().zip(words(block)).for_each(|(to, from)| *to = from);
        for i in 16..80 {
            w[i] = (w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in w.into_iter().enumerate() {
            let (mixed, constant) = match i {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999_u32),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next.wrapping_add(word));
        }
        state.iter_mut().zip([a, b, c, d, e]).for_each(|(to, from)| *to = to.wrapping_add(from));
    }
    state.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, i| bits << 8 | usize::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let letter = char::from(LETTERS[bits >> (18 - 6 * i) & 63]);
            text.push(if i <= group.len() { letter } else { '=' });
        }
    }
    text
}
