import * as z from 'zod'

/** An option that is a share of something: 0.01 or "1%", at least 0 and less than 1. */
export const shareOption = z.union([z.number(), z.string()]).transform((given, context) => {
  const [, digits, percent] = /^\s*([\d.e-]+)\s*(%?)\s*$/i.exec(String(given)) ?? []
  const value = Number(digits ?? Number.NaN) / (percent ? 100 : 1)
  if (value >= 0 && value < 1) return value
  context.addIssue('must be a share like 1% or 0.01')
  return z.NEVER
})
