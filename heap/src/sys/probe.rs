//! probe (placeholder until item 7)
