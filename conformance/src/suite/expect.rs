//! What a call should answer, and whether it did.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};

use super::exec::{End, Output};
use super::matching::{differences, is_text, pattern, says};
use crate::keys::Keys;

/// What a case says of a call.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    pub outcome: Outcome,
    codes: Vec<i64>,
    msg: Option<String>,
    stdout: Option<String>,
    result: Option<Value>,
    absent: Vec<String>,
    within: Option<Duration>,
    /// How many of `times` succeed.
    pub successes: Option<usize>,
    /// Pointers of values that no two results have in common.
    pub distinct: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    #[default]
    Success,
    Failure,
    Either,
}

// === impl Expect ===

impl Expect {
    pub(super) fn read(value: Value, times: usize) -> Result<Expect> {
        let mut keys = Keys::of(value, "expect")?;
        keys.take("why");
        let codes = match keys.take("code") {
            None => Vec::new(),
            Some(Value::Array(codes)) => codes,
            Some(code) => vec![code],
        };
        let mut numbers = Vec::new();
        for code in codes {
            match code.as_i64() {
                Some(code) => numbers.push(code),
                None => bail!("code is a number or an array of them, not {code}"),
            }
        }
        let msg = keys.text("msg")?;
        let speaks_of_failure = !numbers.is_empty() || msg.is_some();
        let any = keys.flag("any")?.unwrap_or(false);
        let outcome = match keys.flag("ok")? {
            _ if any => Outcome::Either,
            Some(false) => Outcome::Failure,
            Some(true) => Outcome::Success,
            None if speaks_of_failure => Outcome::Failure,
            None => Outcome::Success,
        };
        let successes = keys.number("successes", times as u64)?;
        let expect = Expect {
            outcome,
            codes: numbers,
            msg,
            stdout: keys.text("stdout")?,
            result: keys.take("result"),
            absent: keys.texts("absent")?.unwrap_or_default(),
            within: keys
                .number("within_ms", 600_000)?
                .map(Duration::from_millis),
            successes: successes.map(usize::try_from).transpose()?,
            distinct: keys.texts("distinct")?.unwrap_or_default(),
        };
        keys.finish()?;
        ensure!(
            outcome != Outcome::Success || !speaks_of_failure || expect.successes.is_some(),
            "code and msg are of failures, ok is true"
        );
        for pointer in expect.absent.iter().chain(&expect.distinct) {
            ensure!(
                pointer.starts_with('/'),
                "{pointer} is no JSON pointer (/like/0/this)"
            );
        }
        let texts = expect.msg.iter().chain(&expect.stdout);
        for text in texts {
            pattern(text)?;
        }
        if let Some(result) = &expect.result {
            patterns(result)?;
        }
        Ok(expect)
    }

    /// For people: what was wanted.
    #[must_use]
    pub fn told(&self) -> String {
        if let Some(n) = self.successes {
            return format!("{n} of them succeed");
        }
        match self.outcome {
            Outcome::Success => "success".to_owned(),
            Outcome::Either => "success or a CNI error".to_owned(),
            Outcome::Failure if self.codes.is_empty() => "a CNI error".to_owned(),
            Outcome::Failure => {
                let codes: Vec<String> = self.codes.iter().map(i64::to_string).collect();
                format!("a CNI error with the code {}", codes.join(" or "))
            }
        }
    }

    /// What is wrong with an answer, a sentence each.
    pub fn judge(&self, verb: &str, output: &Output) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        if let Some(within) = self.within
            && output.took > within
        {
            wrong.push(format!(
                "it took {} ms, not {} at most",
                output.took.as_millis(),
                within.as_millis()
            ));
        }
        let status = match output.end {
            End::Exit(status) => status,
            End::Signal(signal) => {
                wrong.push(format!("it died by signal {signal}{}", output.tail()));
                return Ok(wrong);
            }
            End::Late(limit) => {
                let limit = limit.as_secs();
                wrong.push(format!("it had not ended after {limit} s and was killed"));
                return Ok(wrong);
            }
            End::Flood => {
                wrong.push("it printed more than 1 MiB and was killed".to_owned());
                return Ok(wrong);
            }
            End::Held => {
                wrong.push("it ended, but a process it left keeps its stdout open".to_owned());
                return Ok(wrong);
            }
        };
        let outcome = match self.successes {
            Some(_) => Outcome::Either,
            None => self.outcome,
        };
        match (outcome, status) {
            (Outcome::Success, 0) | (Outcome::Either, 0) => wrong.extend(success(verb, output)),
            (Outcome::Failure | Outcome::Either, 1..) => self.judge_error(output, &mut wrong)?,
            (Outcome::Failure, _) => wrong.push(format!(
                "it succeeded, where {} was expected{}",
                self.told(),
                output.printed()
            )),
            (_, _) => wrong.push(format!(
                "it failed (exit status {status}){}{}",
                output.printed(),
                output.tail()
            )),
        }
        if let Some(stdout) = &self.stdout
            && !is_text(stdout, &output.text())?
        {
            wrong.push(format!("stdout is not {stdout:?}{}", output.printed()));
        }
        if self.result.is_none() && self.absent.is_empty() {
            return Ok(wrong);
        }
        let Some(got) = output.json() else {
            wrong.push(format!("stdout is not JSON{}", output.printed()));
            return Ok(wrong);
        };
        if let Some(want) = &self.result {
            wrong.extend(differences(want, &got)?);
        }
        for pointer in &self.absent {
            if let Some(value) = got.pointer(pointer) {
                wrong.push(format!("{pointer} is {value}, it should not be there"));
            }
        }
        Ok(wrong)
    }

    fn judge_error(&self, output: &Output, wrong: &mut Vec<String>) -> Result<()> {
        let error = match output.json() {
            Some(Value::Object(error)) => error,
            _ => {
                wrong.push(format!(
                    "it failed, and stdout is no CNI error object{}{}",
                    output.printed(),
                    output.tail()
                ));
                return Ok(());
            }
        };
        wrong.extend(error_shape(&error));
        let code = error.get("code").and_then(Value::as_i64);
        if !self.codes.is_empty() && !code.is_some_and(|c| self.codes.contains(&c)) {
            wrong.push(format!("expected {}{}", self.told(), output.printed()));
        }
        if let Some(msg) = &self.msg {
            let text = |key| error.get(key).and_then(Value::as_str).unwrap_or_default();
            if !says(msg, text("msg"))? && !says(msg, text("details"))? {
                wrong.push(format!(
                    "the error does not say {msg:?}{}",
                    output.printed()
                ));
            }
        }
        Ok(())
    }
}

/// That every one of a result's is one.
fn patterns(value: &Value) -> Result<()> {
    match value {
        Value::String(text) => pattern(text).map(drop),
        Value::Array(items) => items.iter().try_for_each(patterns),
        Value::Object(map) => map.values().try_for_each(patterns),
        _ => Ok(()),
    }
}

/// What success looks like on stdout.
fn success(verb: &str, output: &Output) -> Option<String> {
    match verb {
        "ADD" | "VERSION" => match output.json() {
            Some(Value::Object(_)) => None,
            _ => Some(format!(
                "it succeeded, and stdout is not one JSON object{}",
                output.printed()
            )),
        },
        _ if output.text().trim().is_empty() => None,
        _ => Some(format!(
            "it succeeded, and there is something on stdout{}",
            output.printed()
        )),
    }
}

fn error_shape(error: &Map<String, Value>) -> Vec<String> {
    let mut wrong = Vec::new();
    match error.get("code") {
        Some(code) if code.as_u64().is_some_and(|c| c > 0) => {}
        Some(code) => wrong.push(format!("the error's code is {code}, not a number above 0")),
        None => wrong.push("the error has no code".to_owned()),
    }
    for (key, required) in [("msg", true), ("details", false), ("cniVersion", false)] {
        match error.get(key) {
            Some(Value::String(text)) if !(required && text.is_empty()) => {}
            None if !required => {}
            None => wrong.push(format!("the error has no {key}")),
            Some(other) => wrong.push(format!(
                "the error's {key} is {other}, not a text that says something"
            )),
        }
    }
    wrong
}

// === the shape of results ===

/// What is wrong with the result of an ADD by the specification of that version.
#[must_use]
pub fn shape(result: &Value, version: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let Value::Object(map) = result else {
        return vec!["the result is no object".to_owned()];
    };
    // Results had no version of their own before 0.2.0.
    match map.get("cniVersion").and_then(Value::as_str) {
        Some(is) if is == version => {}
        None if version < "0.2.0" => {}
        other => wrong.push(format!(
            "/cniVersion is {}, the configuration's is {version}",
            other.unwrap_or("missing")
        )),
    }
    if version < "0.3.0" {
        known(map, "", &["cniVersion", "ip4", "ip6", "dns"], &mut wrong);
        for (key, is_v6) in [("ip4", false), ("ip6", true)] {
            if let Some(ip) = map.get(key) {
                of_family(ip, &format!("/{key}"), is_v6, &mut wrong);
            }
        }
    } else {
        let keys = ["cniVersion", "interfaces", "ips", "routes", "dns"];
        known(map, "", &keys, &mut wrong);
        let interfaces = items(map, "interfaces", "", &mut wrong);
        for (i, interface) in interfaces.iter().enumerate() {
            let at = format!("/interfaces/{i}");
            match interface.get("name").and_then(Value::as_str) {
                Some(name) if !name.is_empty() && name.len() <= 15 => {}
                _ => wrong.push(format!("{at}/name is not an interface's name")),
            }
            for key in ["mac", "sandbox", "socketPath", "pciID"] {
                text(interface, key, &at, &mut wrong);
            }
        }
        for (i, ip) in items(map, "ips", "", &mut wrong).iter().enumerate() {
            one_ip(
                ip,
                &format!("/ips/{i}"),
                interfaces.len(),
                version,
                &mut wrong,
            );
        }
        routes(map, "", &mut wrong);
    }
    if let Some(dns) = map.get("dns") {
        match dns {
            Value::Object(dns) => {
                for key in ["nameservers", "search", "options"] {
                    let list = items(dns, key, "/dns", &mut wrong);
                    if !list.iter().all(Value::is_string) {
                        wrong.push(format!("/dns/{key} holds something that is no text"));
                    }
                }
            }
            _ => wrong.push("/dns is no object".to_owned()),
        }
    }
    wrong
}

fn known(map: &Map<String, Value>, at: &str, keys: &[&str], wrong: &mut Vec<String>) {
    for key in map.keys().filter(|k| !keys.contains(&k.as_str())) {
        wrong.push(format!(
            "{at}/{key} is not a key of results of that version"
        ));
    }
}

fn items(map: &Map<String, Value>, key: &str, at: &str, wrong: &mut Vec<String>) -> Vec<Value> {
    match map.get(key) {
        None => Vec::new(),
        Some(Value::Array(items)) => items.clone(),
        Some(other) => {
            wrong.push(format!("{at}/{key} is {other}, not an array"));
            Vec::new()
        }
    }
}

fn text(value: &Value, key: &str, at: &str, wrong: &mut Vec<String>) {
    if let Some(other) = value.get(key).filter(|v| !v.is_string()) {
        wrong.push(format!("{at}/{key} is {other}, not a text"));
    }
}

fn one_ip(ip: &Value, at: &str, interfaces: usize, version: &str, wrong: &mut Vec<String>) {
    let address = ip
        .get("address")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some((parsed, _)) = cidr(address) else {
        wrong.push(format!(
            "{at}/address is {address:?}, not an address with its prefix"
        ));
        return;
    };
    let family = if parsed.is_ipv6() { "6" } else { "4" };
    match ip.get("version") {
        Some(Value::String(is)) if version < "1.0.0" && is == family => {}
        None if version >= "1.0.0" => {}
        Some(_) if version >= "1.0.0" => {
            wrong.push(format!("{at}/version is no key since 1.0.0"));
        }
        other => wrong.push(format!(
            "{at}/version is {}, it should be \"{family}\"",
            other.map_or("missing".to_owned(), Value::to_string)
        )),
    }
    gateway(ip, "gateway", at, parsed.is_ipv6(), wrong);
    if let Some(index) = ip.get("interface") {
        let is_one = index.as_u64().is_some_and(|i| i < interfaces as u64);
        if !is_one {
            wrong.push(format!(
                "{at}/interface is {index}, and there are {interfaces} interfaces"
            ));
        }
    }
}

fn of_family(ip: &Value, at: &str, is_v6: bool, wrong: &mut Vec<String>) {
    let address = ip.get("ip").and_then(Value::as_str).unwrap_or_default();
    if cidr(address).is_none_or(|(ip, _)| ip.is_ipv6() != is_v6) {
        wrong.push(format!(
            "{at}/ip is {address:?}, not such an address with its prefix"
        ));
    }
    gateway(ip, "gateway", at, is_v6, wrong);
    if let Value::Object(map) = ip {
        routes(map, at, wrong);
    }
}

fn routes(map: &Map<String, Value>, at: &str, wrong: &mut Vec<String>) {
    for (i, route) in items(map, "routes", at, wrong).iter().enumerate() {
        let at = format!("{at}/routes/{i}");
        let dst = route.get("dst").and_then(Value::as_str).unwrap_or_default();
        match cidr(dst) {
            Some((ip, _)) => gateway(route, "gw", &at, ip.is_ipv6(), wrong),
            None => wrong.push(format!("{at}/dst is {dst:?}, not a network")),
        }
    }
}

fn gateway(value: &Value, key: &str, at: &str, is_v6: bool, wrong: &mut Vec<String>) {
    let Some(gateway) = value.get(key) else {
        return;
    };
    let parsed = gateway.as_str().and_then(|g| g.parse::<IpAddr>().ok());
    if parsed.is_none_or(|g| g.is_ipv6() != is_v6) {
        wrong.push(format!(
            "{at}/{key} is {gateway}, not an address of the same family"
        ));
    }
}

fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv6() { 128 } else { 32 };
    let length: u8 = length.parse().ok().filter(|l| *l <= most)?;
    Some((address, length))
}

#[cfg(test)]
mod tests;
