import * as z from 'zod'

/** An option that is a share of something: 0.01 or "1%", at least 0 and less than 1. */
export const shareOption = z.union([z.number(), z.string()]).transform((given, context) => {
  const text = String(given).trim()
  const value = text.endsWith('%') ? Number(text.slice(0, -1)) / 100 : Number(text)
  if (Number.isFinite(value) && value >= 0 && value < 1 && text !== '') return value
  context.addIssue('must be a share like 1% or 0.01')
  return z.NEVER
})
