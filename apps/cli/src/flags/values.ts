/** Words of the command line → values; what can't be read is refused with the flag's name. */

import { InvalidArgumentError } from 'commander'

export interface NumberLimits {
  readonly integer?: boolean
  readonly least?: number
  readonly most?: number
}

export function parseNumber(limits: NumberLimits = {}): (text: string) => number {
  return (text) => {
    const value = Number(text)
    const { integer = false, least, most } = limits
    if (text.trim() === '' || !Number.isFinite(value)) {
      throw new InvalidArgumentError('It is not a number.')
    }
    if (integer && !Number.isSafeInteger(value)) {
      throw new InvalidArgumentError('It must be a whole number.')
    }
    if (least !== undefined && value < least) {
      throw new InvalidArgumentError(`It must be at least ${least}.`)
    }
    if (most !== undefined && value > most) {
      throw new InvalidArgumentError(`It must be at most ${most}.`)
    }
    return value
  }
}

export const wholeNumber = (least = 0, most?: number): ((text: string) => number) =>
  parseNumber({ integer: true, least, most })

const FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
}

/** "5GB", "512MiB", "1000000". */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?$/i.exec(text.trim())
  const factor = match && FACTORS[match[2].toLowerCase()]
  const value = match && factor ? Math.round(Number(match[1]) * factor) : 0
  if (value < 1) throw new InvalidArgumentError('Write it like 5GB, 512MiB or 1000000.')
  return value
}
