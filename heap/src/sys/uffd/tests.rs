//! What a real userfaultfd does with each request.
