//! Names that many tasks share, as small numbers.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// The number of a name, good while something holds it.
pub(super) type Number = u32;

/// Values by their numbers, each held by a count of who uses it.
#[derive(Debug, Clone)]
pub(super) struct Interned<K: Eq + Hash, V> {
    slots: Vec<Option<Slot<K, V>>>,
    numbers: HashMap<K, Number>,
    free: Vec<Number>,
}

#[derive(Debug, Clone)]
struct Slot<K, V> {
    key: K,
    value: V,
    holders: usize,
}

impl<K: Eq + Hash, V> Default for Interned<K, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), numbers: HashMap::new(), free: Vec::new() }
    }
}

impl<K: Eq + Hash + Clone, V> Interned<K, V> {
    /// Returns the number of `key` and holds it once more; a new one gets `value`.
    pub(super) fn hold(&mut self, key: K, value: impl FnOnce() -> V) -> Number {
        if let Some(&number) = self.numbers.get(&key) {
            if let Some(slot) = self.slot_mut(number) {
                slot.holders += 1;
            }
            return number;
        }
        let slot = Some(Slot { key: key.clone(), value: value(), holders: 1 });
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                Number::try_from(self.slots.len() - 1).unwrap_or(Number::MAX)
            }
        };
        self.numbers.insert(key, number);
        number
    }

    /// Lets go of `number` once; returns the value when nobody holds it any more.
    pub(super) fn release(&mut self, number: Number) -> Option<V> {
        let slot = self.slot_mut(number)?;
        slot.holders -= 1;
        if slot.holders > 0 {
            return None;
        }
        let slot = self.slots.get_mut(number as usize)?.take()?;
        self.numbers.remove(&slot.key);
        self.free.push(number);
        Some(slot.value)
    }

    /// The number of `key`, if something holds it.
    pub(super) fn number<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<Number>
    where
        K: Borrow<Q>,
    {
        self.numbers.get(key).copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn key(&self, number: Number) -> Option<&K> {
        self.slot(number).map(|slot| &slot.key)
    }

    pub(super) fn get(&self, number: Number) -> Option<&V> {
        self.slot(number).map(|slot| &slot.value)
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut V> {
        self.slot_mut(number).map(|slot| &mut slot.value)
    }

    /// All of them, in order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Number, &K, &V)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(number, slot)| slot.as_ref().map(|slot| (number, &slot.key, &slot.value)))
    }

    /// How many hold it.
    #[cfg(test)]
    pub(super) fn holders(&self, number: Number) -> usize {
        self.slot(number).map_or(0, |slot| slot.holders)
    }

    fn slot(&self, number: Number) -> Option<&Slot<K, V>> {
        self.slots.get(number as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: Number) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(number as usize)?.as_mut()
    }
}
