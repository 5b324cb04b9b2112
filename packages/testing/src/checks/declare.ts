/** Checks are declared as tests are (`it`, `it.each`) and come out as a list. */

export interface Declared {
  readonly name: string
  readonly run: () => unknown
}

/** Rows that are constants, as parameters. */
type Mutable<Row extends readonly unknown[]> = { -readonly [Index in keyof Row]: Row[Index] }

export interface Declare {
  (name: string, run: () => unknown): void
  /** One check for each row; `%i`, `%d`, `%s` in the name are the row's values in turn, `$key` is a row's key. */
  each<Row extends readonly unknown[] | readonly [unknown]>(
    rows: readonly Row[],
  ): (name: string, run: (...row: Mutable<Row>) => unknown) => void
  each<Value>(values: readonly Value[]): (name: string, run: (value: Value) => unknown) => void
}

/** What `declare` has declared, in its order. */
export function collect(declare: (it: Declare) => void): Declared[] {
  const found: Declared[] = []
  const it = ((name: string, run: () => unknown) => {
    found.push({ name, run })
  }) as Declare
  it.each = (rows: readonly unknown[]) => (name: string, run: (...row: never[]) => unknown) => {
    for (const row of rows) {
      const values = (Array.isArray(row) ? row : [row]) as never[]
      it(titled(name, values), () => run(...values))
    }
  }
  declare(it)
  return found
}

function titled(name: string, values: readonly unknown[]): string {
  let next = 0
  return name
    .replace(/%[ids]/g, () => String(values[next++]))
    .replace(/\$(\w+)/g, (_, key: string) => String((values[0] as Record<string, unknown>)[key]))
}
