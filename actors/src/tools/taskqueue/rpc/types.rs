//! The types of tasks that Python workers name, and the other names of each.

use std::{collections::BTreeSet, sync::Arc};

use super::super::arguments;

/// The first of each is the usual name; a worker that names any of them runs all.
const SAME: [&[&str]; 11] = [
    &["text-generation", "text_generation", "generation"],
    &["text2text-generation", "text2text_generation", "text2text"],
    &[
        "embedding",
        "embeddings",
        "text-embedding",
        "text_embedding",
        "text-embeddings",
        "text_embeddings",
    ],
    &["text-classification", "text_classification"],
    &["hf.pipeline", "hf_pipeline"],
    &["llm.generate", "llm_generate"],
    &["multimodal-generation", "multimodal_generation", "vision-generation", "vision_generation"],
    &["tool.call", "tool"],
    &["voice.tts", "voice_tts", "voice-tts", "tts", "text-to-speech", "text_to_speech"],
    &[
        "voice.asr",
        "voice_asr",
        "voice-asr",
        "asr",
        "stt",
        "voice.stt",
        "voice_stt",
        "voice-stt",
        "speech-to-text",
        "speech_to_text",
        "automatic-speech-recognition",
        "automatic_speech_recognition",
    ],
    &[
        "voice.audio-validate",
        "voice.audio_validate",
        "audio-validate",
        "audio_validate",
        "audio-validation",
        "audio_validation",
    ],
];

/// The types that a worker runs which names these; `None`, all, where it names none. What is no
/// type of tasks is left out.
pub(super) fn expanded(named: &[String]) -> Option<BTreeSet<Arc<str>>> {
    if named.is_empty() {
        return None;
    }
    let mut types = BTreeSet::new();
    for name in named {
        let lower = name.to_lowercase();
        let same = SAME.iter().find(|same| same.contains(&lower.as_str()));
        types.extend(same.into_iter().flat_map(|same| same.iter().copied()).map(Arc::from));
        types.extend([arguments::kind(name), arguments::kind(&lower)].into_iter().flatten());
    }
    Some(types)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_a_types_names_stands_for_all() {
        let named =
            |names: &[&str]| expanded(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(named(&[]), None);
        let generation = named(&["Generation"]).unwrap_or_default();
        for name in ["text-generation", "text_generation", "generation", "Generation"] {
            assert!(generation.contains(name), "{name}");
        }
        let own = named(&["docker.run", "not a type!"]).unwrap_or_default();
        assert_eq!(own.iter().map(|name| &**name).collect::<Vec<_>>(), ["docker.run"]);
        assert!(named(&["!"]).is_some_and(|types| types.is_empty()), "it runs nothing there is");
    }

    #[test]
    fn no_name_stands_for_two_types() {
        let all: Vec<&str> = SAME.iter().flat_map(|same| same.iter().copied()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
