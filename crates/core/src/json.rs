//! Cheap looks at JSON text before it is parsed.

/// Returns the deepest nesting of arrays and objects in `text`, stopping once it is over `limit`.
///
/// Works on any bytes: whether the text is JSON at all is the parser's to say.
///
/// ```
/// assert_eq!(toolmesh_core::json::depth(br#"{"a":["]["]}"#, 64), 2);
/// assert_eq!(toolmesh_core::json::depth(b"[[[[", 2), 3);
/// ```
pub fn depth(text: &[u8], limit: usize) -> usize {
    let (mut now, mut deepest) = (0_usize, 0_usize);
    let (mut quoted, mut escaped) = (false, false);
    for &byte in text {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => {
                now += 1;
                deepest = deepest.max(now);
                if deepest > limit {
                    return deepest;
                }
            }
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Returns about how many values a parser would make of `text`: its commas, arrays and objects.
///
/// Works on any bytes, like [`depth`].
///
/// ```
/// assert_eq!(toolmesh_core::json::values(br#"{"a":[1,"b,c",{}]}"#), 5);
/// ```
pub fn values(text: &[u8]) -> usize {
    let mut count = 0;
    let (mut quoted, mut escaped) = (false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}
