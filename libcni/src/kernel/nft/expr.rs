//! Expressions: the instructions a rule is made of.

use crate::nl::{Message, attr};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;

const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;

const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;

const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;

const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;
const NFT_LOOKUP_F_INV: u32 = 1;

const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;
const NFTA_TARGET_NAME: u16 = 1;

const NFTA_MASQ_FLAGS: u16 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` of nf_nat.h.
const RANDOM_FULLY: u32 = 1 << 4;

const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;

/// `NFT_REG_VERDICT`; registers from 1 (`NFT_REG_1`) hold 16 bytes each, and longer values run into the next.
const REG_VERDICT: u32 = 0;

/// One instruction. Values are bytes as they are in the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads a fact about the packet (`NFT_META_*`) into a register.
    Meta {
        /// `NFT_META_IIFNAME`, ...
        key: u32,
        /// Where to.
        reg: u32,
    },
    /// Loads bytes of the packet into a register.
    Payload {
        /// `NFT_PAYLOAD_LL_HEADER` (0) or `NFT_PAYLOAD_NETWORK_HEADER` (1).
        base: u32,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where to.
        reg: u32,
    },
    /// Keeps only the bits of a mask.
    Mask {
        /// In which register.
        reg: u32,
        /// As long as what is in there.
        mask: Vec<u8>,
    },
    /// The rule goes on only if the comparison holds.
    Cmp {
        /// What to compare.
        reg: u32,
        /// How.
        op: Compare,
        /// With what.
        value: Vec<u8>,
    },
    /// The rule goes on only if the register's value is in the set (or not in it).
    Lookup {
        /// The set's name.
        set: String,
        /// What to look up.
        reg: u32,
        /// Goes on if it is *not* in there.
        inverted: bool,
    },
    /// Ends with the verdict the map holds for the register's value, if it holds one.
    VerdictMap {
        /// The map's name.
        map: String,
        /// What to look up.
        reg: u32,
    },
    /// Ends with a verdict.
    Verdict(Verdict),
    /// Ends with source NAT to the address of the interface the packet leaves by.
    Masquerade,
    /// The same, with a source port drawn at random: two connections at once hardly ever draw the same.
    MasqueradeFullyRandom,
    /// Counts packets and bytes, from 0; what was counted is not read.
    Counter,
    /// The target of an iptables rule that has no instruction of its own (`-j REJECT`), by name; read, never written.
    XtTarget(String),
    /// The comment of an iptables rule (`-m comment`); read, never written.
    XtComment(String),
    /// Anything else, by its name (`reject`, `match`, ...): read, never written.
    Other(String),
}

/// `enum nft_cmp_ops`, as far as used; bytes compare as in a big endian number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Compare {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// Where the packet goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Away with it.
    Drop,
    /// Through with this base chain.
    Accept,
    /// Back to the chain that jumped here; the policy, if none did.
    Return,
    /// To a chain, and back behind this rule.
    Jump(String),
    /// To a chain, and not back here.
    Goto(String),
}

/// Writes the expressions into `NFTA_RULE_EXPRESSIONS`.
pub(super) fn put_list(message: Message, exprs: &[Expr]) -> Message {
    exprs
        .iter()
        .fold(message, |m, expr| m.nest(NFTA_LIST_ELEM, |m| expr.put(m)))
}

/// Reads `NFTA_RULE_EXPRESSIONS`.
pub(super) fn read_list(payload: &[u8]) -> Vec<Expr> {
    attr::Attrs::new(payload)
        .filter(|(kind, _)| *kind == NFTA_LIST_ELEM)
        .map(|(_, expr)| Expr::read(expr))
        .collect()
}

// === impl Expr ===

impl Expr {
    fn put(&self, message: Message) -> Message {
        let expr = |name, data: &dyn Fn(Message) -> Message| {
            message.str(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data)
        };
        match self {
            Expr::Meta { key, reg } => expr("meta", &|m| {
                m.be32(NFTA_META_KEY, *key).be32(NFTA_META_DREG, *reg)
            }),
            Expr::Payload {
                base,
                offset,
                len,
                reg,
            } => expr("payload", &|m| {
                m.be32(NFTA_PAYLOAD_DREG, *reg)
                    .be32(NFTA_PAYLOAD_BASE, *base)
                    .be32(NFTA_PAYLOAD_OFFSET, *offset)
                    .be32(NFTA_PAYLOAD_LEN, *len)
            }),
            Expr::Mask { reg, mask } => expr("bitwise", &|m| {
                m.be32(NFTA_BITWISE_SREG, *reg)
                    .be32(NFTA_BITWISE_DREG, *reg)
                    .be32(
                        NFTA_BITWISE_LEN,
                        u32::try_from(mask.len()).unwrap_or(u32::MAX),
                    )
                    .nest(NFTA_BITWISE_MASK, |m| m.bytes(NFTA_DATA_VALUE, mask))
                    .nest(NFTA_BITWISE_XOR, |m| {
                        m.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()])
                    })
            }),
            Expr::Cmp { reg, op, value } => expr("cmp", &|m| {
                m.be32(NFTA_CMP_SREG, *reg)
                    .be32(NFTA_CMP_OP, *op as u32)
                    .nest(NFTA_CMP_DATA, |m| m.bytes(NFTA_DATA_VALUE, value))
            }),
            Expr::Lookup { set, reg, inverted } => expr("lookup", &|m| {
                let m = m.str(NFTA_LOOKUP_SET, set).be32(NFTA_LOOKUP_SREG, *reg);
                if *inverted {
                    m.be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV)
                } else {
                    m
                }
            }),
            Expr::VerdictMap { map, reg } => expr("lookup", &|m| {
                m.str(NFTA_LOOKUP_SET, map)
                    .be32(NFTA_LOOKUP_SREG, *reg)
                    .be32(NFTA_LOOKUP_DREG, REG_VERDICT)
            }),
            Expr::Verdict(verdict) => expr("immediate", &|m| {
                m.be32(NFTA_IMMEDIATE_DREG, REG_VERDICT)
                    .nest(NFTA_IMMEDIATE_DATA, |m| verdict.put(m))
            }),
            Expr::Masquerade => expr("masq", &|m| m),
            Expr::MasqueradeFullyRandom => expr("masq", &|m| m.be32(NFTA_MASQ_FLAGS, RANDOM_FULLY)),
            Expr::Counter => expr("counter", &|m| m),
            // The kernel refuses these, for the data that is missing.
            Expr::XtComment(_) => expr("match", &|m| m),
            Expr::XtTarget(_) => expr("target", &|m| m),
            Expr::Other(name) => expr(name, &|m| m),
        }
    }

    fn read(payload: &[u8]) -> Expr {
        let expr = attr::Attrs::new(payload);
        let name = expr
            .clone()
            .find(NFTA_EXPR_NAME)
            .and_then(attr::str)
            .unwrap_or_default();
        let data = attr::Attrs::new(expr.find(NFTA_EXPR_DATA).unwrap_or_default());
        Expr::read_data(name, &data).unwrap_or_else(|| Expr::Other(name.to_owned()))
    }

    /// `None` for what has no type here.
    fn read_data(name: &str, data: &attr::Attrs<'_>) -> Option<Expr> {
        let number = |kind| data.clone().find(kind).and_then(attr::be32);
        let value = |kind| {
            let nest = attr::Attrs::new(data.clone().find(kind)?);
            nest.find(NFTA_DATA_VALUE).map(<[u8]>::to_vec)
        };
        match name {
            "meta" => Some(Expr::Meta {
                key: number(NFTA_META_KEY)?,
                reg: number(NFTA_META_DREG)?,
            }),
            "payload" => Some(Expr::Payload {
                base: number(NFTA_PAYLOAD_BASE)?,
                offset: number(NFTA_PAYLOAD_OFFSET)?,
                len: number(NFTA_PAYLOAD_LEN)?,
                reg: number(NFTA_PAYLOAD_DREG)?,
            }),
            "bitwise" => {
                let (reg, to) = (number(NFTA_BITWISE_SREG)?, number(NFTA_BITWISE_DREG)?);
                let plain = reg == to && value(NFTA_BITWISE_XOR)?.iter().all(|byte| *byte == 0);
                plain.then_some(Expr::Mask {
                    reg,
                    mask: value(NFTA_BITWISE_MASK)?,
                })
            }
            "cmp" => Some(Expr::Cmp {
                reg: number(NFTA_CMP_SREG)?,
                op: Compare::read(number(NFTA_CMP_OP)?)?,
                value: value(NFTA_CMP_DATA)?,
            }),
            "lookup" => {
                let set = data
                    .clone()
                    .find(NFTA_LOOKUP_SET)
                    .and_then(attr::str)?
                    .to_owned();
                let reg = number(NFTA_LOOKUP_SREG)?;
                let flags = number(NFTA_LOOKUP_FLAGS).unwrap_or_default();
                match number(NFTA_LOOKUP_DREG) {
                    None => Some(Expr::Lookup {
                        set,
                        reg,
                        inverted: flags == NFT_LOOKUP_F_INV,
                    }),
                    Some(REG_VERDICT) => Some(Expr::VerdictMap { map: set, reg }),
                    Some(_) => None,
                }
            }
            "immediate" if number(NFTA_IMMEDIATE_DREG)? == REG_VERDICT => {
                Verdict::read(data.clone().find(NFTA_IMMEDIATE_DATA)?).map(Expr::Verdict)
            }
            "match"
                if data.clone().find(NFTA_MATCH_NAME).and_then(attr::str) == Some("comment") =>
            {
                // struct xt_comment_info: 256 bytes of text, closed by a NUL.
                let text = data.clone().find(NFTA_MATCH_INFO).and_then(attr::str)?;
                Some(Expr::XtComment(text.to_owned()))
            }
            "target" => {
                let name = data.clone().find(NFTA_TARGET_NAME).and_then(attr::str)?;
                Some(Expr::XtTarget(name.to_owned()))
            }
            "counter" => Some(Expr::Counter),
            // With other flags or a port range it is not what we write.
            "masq" if data.clone().next().is_none() => Some(Expr::Masquerade),
            "masq" if data.clone().count() == 1 && number(NFTA_MASQ_FLAGS)? == RANDOM_FULLY => {
                Some(Expr::MasqueradeFullyRandom)
            }
            _ => None,
        }
    }
}

// === impl Compare ===

impl Compare {
    fn read(op: u32) -> Option<Compare> {
        [
            Compare::Equal,
            Compare::NotEqual,
            Compare::AtMost,
            Compare::AtLeast,
        ]
        .into_iter()
        .find(|c| *c as u32 == op)
    }
}

// === impl Verdict ===

impl Verdict {
    /// Writes `NFTA_DATA_VERDICT`, as an immediate and as a map's element hold it.
    pub(super) fn put(&self, message: Message) -> Message {
        // NF_DROP, NF_ACCEPT of netfilter.h; NFT_RETURN, NFT_JUMP, NFT_GOTO of nf_tables.h.
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Return => (-5i32, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        message.nest(NFTA_DATA_VERDICT, |m| {
            let m = m.be32(NFTA_VERDICT_CODE, code.cast_unsigned());
            match chain {
                Some(chain) => m.str(NFTA_VERDICT_CHAIN, chain),
                None => m,
            }
        })
    }

    /// Reads the data that holds a `NFTA_DATA_VERDICT`; `None` for a verdict without a name here.
    pub(super) fn read(data: &[u8]) -> Option<Verdict> {
        let verdict = attr::Attrs::new(attr::Attrs::new(data).find(NFTA_DATA_VERDICT)?);
        let chain = verdict
            .clone()
            .find(NFTA_VERDICT_CHAIN)
            .and_then(attr::str)
            .map(str::to_owned);
        match verdict
            .find(NFTA_VERDICT_CODE)
            .and_then(attr::be32)?
            .cast_signed()
        {
            0 => Some(Verdict::Drop),
            1 => Some(Verdict::Accept),
            -5 => Some(Verdict::Return),
            -3 => chain.map(Verdict::Jump),
            -4 => chain.map(Verdict::Goto),
            _ => None,
        }
    }
}
