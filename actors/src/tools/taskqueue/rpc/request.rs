//! A request as Python callers write it: loosely typed, with several names for one thing.

use serde_json::{Map, Value};
use toolmesh_core::queue::Fence;

use super::super::error::Refused;

/// The largest whole number up to which a float says which number is meant.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Request(Map<String, Value>);

impl Request {
    /// Reads the arguments of a call. What is wrapped in an object of one key, as some callers do
    /// it, is taken out.
    pub(super) fn new(mut arguments: Map<String, Value>) -> Self {
        let is_wrapped = arguments.len() == 1;
        match arguments.values_mut().next() {
            Some(Value::Object(inner)) if is_wrapped => Self(std::mem::take(inner)),
            _ => Self(arguments),
        }
    }

    /// All that is given.
    pub(super) fn into_fields(self) -> Map<String, Value> {
        self.0
    }

    /// The operation.
    pub(super) fn op(&self) -> String {
        self.text(&["op"]).unwrap_or_default().to_lowercase()
    }

    /// What is given as `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Takes what is given as `name`, to keep it.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    /// The first of `names` that is a text, or a number as text; trimmed and not empty.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| text(self.get(name)?))
    }

    /// The first of `names` that is a number, or the text of one.
    pub(super) fn number(&self, names: &[&str]) -> Option<f64> {
        names.iter().find_map(|name| number(self.get(name)?))
    }

    /// The number under `names`, or the default: where it is missing, and where it is 0.
    pub(super) fn number_or(&self, names: &[&str], default: f64) -> f64 {
        self.number(names).filter(|number| *number != 0.0).unwrap_or(default)
    }

    /// A number of things from 1 to `most`: what is beyond it is brought there.
    pub(super) fn count(&self, names: &[&str], default: usize, most: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float becomes an integer by saturating"
        )]
        let given = self.number(names).filter(|number| *number != 0.0).map(|count| count as usize);
        given.unwrap_or(default).clamp(1, most)
    }

    /// The proof of a lease, where one is given: a whole number, or the text of one.
    ///
    /// # Errors
    /// What is given is no such number. It must not pass for none: whoever shows a fence says that it
    /// may have lost its lease.
    pub(super) fn fence(&self) -> Result<Option<Fence>, Refused> {
        let Some(given) = self.get("fence") else { return Ok(None) };
        whole(given).map(Fence).map(Some).ok_or_else(|| {
            Refused::invalid("fence: the number that came with the claimed task is expected")
        })
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, names: &[&str], default: bool) -> bool {
        let given = names.iter().find_map(|name| self.get(name));
        given.map_or(default, |value| match value {
            Value::Bool(on) => *on,
            Value::String(text) => {
                ["1", "true", "yes", "on"].contains(&text.trim().to_lowercase().as_str())
            }
            other => other.as_f64().is_some_and(|number| number != 0.0),
        })
    }

    /// The texts under the first of `names` that has some: a list of them, or one with commas between.
    pub(super) fn texts(&self, names: &[&str]) -> Vec<String> {
        let is_some = |value: &&Value| value.as_array().is_none_or(|items| !items.is_empty());
        match names.iter().find_map(|name| self.get(name).filter(is_some)) {
            Some(Value::Array(items)) => items.iter().filter_map(text).collect(),
            Some(Value::String(given)) => {
                let parts = given.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A text, or a number as text; trimmed and not empty.
pub(super) fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// A whole number, however it is written, if there is no doubt which.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => {
            let digits = Some(text.trim()).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            digits?.parse().ok()
        }
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is whole and within what both types hold"
            )]
            (float.fract() == 0.0 && (0.0..=WHOLE).contains(&float)).then_some(float as u64)
        }),
        _ => None,
    }
}

/// A number, or the text of one.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        other => other.as_f64()?,
    };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::object, *};

    fn request(value: Value) -> Request {
        Request::new(object(value))
    }

    #[test]
    fn one_object_alone_is_the_request() {
        assert_eq!(request(json!({"request": {"op": " GET "}})).op(), "get");
        assert_eq!(request(json!({"op": "Submit", "payload": {"op": "get"}})).op(), "submit");
        assert_eq!(request(json!({"op": 7})).op(), "7");
        assert_eq!(request(json!({})).op(), "");
    }

    #[test]
    fn names_are_tried_in_order_and_nothing_is_no_value() {
        let request = request(json!({"a": " ", "b": null, "c": " x ", "n": "2.5", "z": 0, "m": 7}));
        assert_eq!(request.text(&["a", "b", "c", "m"]).as_deref(), Some("x"));
        assert_eq!(request.text(&["m"]).as_deref(), Some("7"));
        assert_eq!(request.number(&["c", "n"]), Some(2.5));
        assert_eq!(
            (request.number_or(&["z"], 60.0), request.number_or(&["x"], 60.0)),
            (60.0, 60.0)
        );
    }

    #[test]
    fn numbers_of_things_are_brought_within_their_bounds() {
        let request = request(json!({"few": -3, "none": 0, "some": 12, "many": 1e9}));
        let count = |name| request.count(&[name], 50, 1_000);
        assert_eq!(["few", "none", "some", "many", "x"].map(count), [1, 50, 12, 1_000, 50]);
    }

    #[test]
    fn a_fence_is_a_whole_number_or_refused_and_never_overlooked() {
        let fence = |value: Value| request(json!({"op": "", "fence": value})).fence();
        let is = |value, number| assert_eq!(fence(value), Ok(Some(Fence(number))));
        is(json!(0), 0);
        is(json!(u64::MAX), u64::MAX);
        is(json!(4_294_967_298.0), 4_294_967_298);
        is(json!(" 4294967298 "), 4_294_967_298);
        is(json!(u64::MAX.to_string()), u64::MAX);
        for wrong in [
            json!(-1),
            json!(1.5),
            json!(-1.0),
            json!(1e300),
            json!(9_007_199_254_740_994.0),
            json!("1.0"),
            json!("x"),
            json!(""),
            json!("-1"),
            json!("+1"),
            json!(true),
            json!(false),
            json!([1]),
            json!({"fence": 1}),
            json!("18446744073709551616"),
        ] {
            let refused = fence(wrong.clone()).map_err(|refused| refused.code());
            assert_eq!(refused, Err("invalid_arguments"), "{wrong}");
        }
        assert_eq!(fence(Value::Null), Ok(None));
        assert_eq!(request(json!({"op": ""})).fence(), Ok(None));
    }

    #[test]
    fn lists_are_arrays_or_have_commas() {
        let request =
            request(json!({"a": ["x", 1, null, " "], "b": "x, y,,", "c": {}, "empty": []}));
        assert_eq!(request.texts(&["a"]), ["x", "1"]);
        assert_eq!(request.texts(&["none", "b"]), ["x", "y"]);
        assert_eq!(request.texts(&["empty", "b"]), ["x", "y"]);
        assert!(request.texts(&["c"]).is_empty());
    }

    #[test]
    fn switches_are_read_in_the_ways_of_python() {
        let request = request(json!({"a": true, "b": "Yes", "c": 0, "d": "false"}));
        assert!(request.is_on(&["a"], false) && request.is_on(&["b"], false));
        assert!(!request.is_on(&["c"], true) && !request.is_on(&["d"], true));
        assert!(request.is_on(&["x"], true));
    }
}
