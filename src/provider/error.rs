//! What can go wrong between us and an engine.

/// Why an engine did not do as asked. The text speaks of this level only; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The engine can not be reached, or hung up: nothing is known of the unit.
    #[error("engine `{engine}` is away")]
    Away {
        /// The engine's address.
        engine: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine did not answer in time. The order may yet be carried out.
    #[error("engine `{engine}` did not answer within {}", crate::model::format_duration(*.after))]
    TimedOut {
        /// The engine's address.
        engine: String,
        /// The deadline that passed.
        after: std::time::Duration,
    },
    /// There is no such unit.
    #[error("no such unit: `{unit}`")]
    NoSuchUnit {
        /// The name asked for.
        unit: String,
    },
    /// The engine refused, with its words.
    #[error("the engine refused to {verb} `{unit}`: {reason}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
        /// The engine's words.
        reason: String,
    },
    /// The engine answered something that makes no sense.
    #[error("engine `{engine}` answered nonsense: {reason}")]
    Nonsense {
        /// The engine's address.
        engine: String,
        /// What was wrong with the answer.
        reason: String,
    },
}

impl ProviderError {
    /// Whether the engine as a whole is the trouble, rather than this unit.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::TimedOut { .. })
    }
}
