//! What goes into a statement. Each parameter has its database type by its Rust type, also when it is null.

use super::Error;
use rusqlite::types::{ToSqlOutput, ValueRef};
use std::borrow::Cow;
use std::sync::Arc;

/// A parameter's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `integer`, `bigint`.
    Integer(Option<i64>),
    /// `real`, `double precision`.
    Real(Option<f64>),
    /// `text`.
    Text(Option<&'a str>),
    /// `blob`, `bytea`.
    Blob(Option<&'a [u8]>),
    /// A list of integers; PostgreSQL only.
    Integers(&'a [Option<i64>]),
    /// A list of texts; PostgreSQL only.
    Texts(&'a [Option<&'a str>]),
}

/// A type that can be a parameter.
pub trait Param {
    /// Null of this type.
    const NULL: Value<'static>;

    /// The value of this one.
    fn value(&self) -> Result<Value<'_>, Error>;
}

macro_rules! integers {
    ($($t:ty)*) => {$(
        impl Param for $t {
            const NULL: Value<'static> = Value::Integer(None);

            fn value(&self) -> Result<Value<'_>, Error> {
                i64::try_from(*self)
                    .map(|value| Value::Integer(Some(value)))
                    .map_err(|_| Error::Parameter(format!("{self} is beyond 64 bits with a sign")))
            }
        }
    )*};
}

integers!(i64 i32 u8 u16 u32 u64 usize bool);

impl Param for f64 {
    const NULL: Value<'static> = Value::Real(None);

    fn value(&self) -> Result<Value<'_>, Error> {
        Ok(Value::Real(Some(*self)))
    }
}

macro_rules! texts {
    ($($t:ty)*) => {$(
        impl Param for $t {
            const NULL: Value<'static> = Value::Text(None);

            fn value(&self) -> Result<Value<'_>, Error> {
                Ok(Value::Text(Some(self)))
            }
        }
    )*};
}

texts!(str String Arc<str> Box<str> Cow<'_, str>);

macro_rules! blobs {
    ($($t:ty)*) => {$(
        impl Param for $t {
            const NULL: Value<'static> = Value::Blob(None);

            fn value(&self) -> Result<Value<'_>, Error> {
                Ok(Value::Blob(Some(self)))
            }
        }
    )*};
}

blobs!([u8] Vec<u8>);

impl<const N: usize> Param for [u8; N] {
    const NULL: Value<'static> = Value::Blob(None);

    fn value(&self) -> Result<Value<'_>, Error> {
        Ok(Value::Blob(Some(self)))
    }
}

/// Lists for `unnest`, which is how PostgreSQL takes many rows at once.
impl Param for [Option<i64>] {
    const NULL: Value<'static> = Value::Integers(&[]);

    fn value(&self) -> Result<Value<'_>, Error> {
        Ok(Value::Integers(self))
    }
}

impl Param for [Option<&str>] {
    const NULL: Value<'static> = Value::Texts(&[]);

    fn value(&self) -> Result<Value<'_>, Error> {
        Ok(Value::Texts(self))
    }
}

impl<T: Param> Param for Option<T> {
    const NULL: Value<'static> = T::NULL;

    fn value(&self) -> Result<Value<'_>, Error> {
        self.as_ref().map_or(Ok(T::NULL), Param::value)
    }
}

impl<T: Param + ?Sized> Param for &T {
    const NULL: Value<'static> = T::NULL;

    fn value(&self) -> Result<Value<'_>, Error> {
        (**self).value()
    }
}

/// The parameters of a statement: an array, a tuple, or a slice of values that were made before.
pub trait Params {
    /// Gives each, in order.
    fn each<'a>(&'a self, take: &mut dyn FnMut(Value<'a>) -> Result<(), Error>) -> Result<(), Error>;
}

/// None: `[]`.
impl Params for [std::convert::Infallible; 0] {
    fn each<'a>(&'a self, _take: &mut dyn FnMut(Value<'a>) -> Result<(), Error>) -> Result<(), Error> {
        Ok(())
    }
}

macro_rules! arrays {
    ($($n:literal)*) => {$(
        impl<T: Param> Params for [T; $n] {
            fn each<'a>(&'a self, take: &mut dyn FnMut(Value<'a>) -> Result<(), Error>) -> Result<(), Error> {
                self.iter().try_for_each(|param| take(param.value()?))
            }
        }
    )*};
}

arrays!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Param),*> Params for ($($name,)*) {
            #[expect(non_snake_case, reason = "the types' names serve the values, too")]
            fn each<'a>(&'a self, take: &mut dyn FnMut(Value<'a>) -> Result<(), Error>) -> Result<(), Error> {
                let ($($name,)*) = self;
                $(take($name.value()?)?;)*
                Ok(())
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);
tuples!(A B C D E F G H I J K L M);
tuples!(A B C D E F G H I J K L M N);
tuples!(A B C D E F G H I J K L M N O);
tuples!(A B C D E F G H I J K L M N O P);
tuples!(A B C D E F G H I J K L M N O P Q);
tuples!(A B C D E F G H I J K L M N O P Q R);
tuples!(A B C D E F G H I J K L M N O P Q R S);
tuples!(A B C D E F G H I J K L M N O P Q R S T);
tuples!(A B C D E F G H I J K L M N O P Q R S T U);
tuples!(A B C D E F G H I J K L M N O P Q R S T U V);
tuples!(A B C D E F G H I J K L M N O P Q R S T U V W);
tuples!(A B C D E F G H I J K L M N O P Q R S T U V W X);

impl Params for &[Value<'_>] {
    fn each<'a>(&'a self, take: &mut dyn FnMut(Value<'a>) -> Result<(), Error>) -> Result<(), Error> {
        self.iter().try_for_each(|value| take(*value))
    }
}

/// Values that wait for SQLite.
impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Integer(Some(value)) => ValueRef::Integer(value),
            Self::Real(Some(value)) => ValueRef::Real(value),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Blob(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Integer(None) | Self::Real(None) | Self::Text(None) | Self::Blob(None) => ValueRef::Null,
            Self::Integers(_) | Self::Texts(_) => {
                return Err(rusqlite::Error::ToSqlConversionFailure("SQLite has no lists".into()));
            }
        }))
    }
}

/// Binds the parameters to a SQLite statement.
pub(super) fn bind(statement: &mut rusqlite::Statement<'_>, params: &impl Params) -> Result<(), Error> {
    let mut number = 0;
    params.each(&mut |value| {
        number += 1;
        Ok(statement.raw_bind_parameter(number, value)?)
    })?;
    // A forgotten one would be null, or what it was at the statement's last use.
    if number != statement.parameter_count() {
        return Err(rusqlite::Error::InvalidParameterCount(number, statement.parameter_count()).into());
    }
    Ok(())
}

/// The parameters as a list.
pub(super) fn collect(params: &impl Params) -> Result<Vec<Value<'_>>, Error> {
    let mut values = Vec::new();
    params.each(&mut |value| {
        values.push(value);
        Ok(())
    })?;
    Ok(values)
}
