import type { Recipe } from '@lowbit/pipeline'
import { readText } from '../model-source/texts.ts'

/** The recipe of a YAML file. Commands that seldom need one load what parses it then. */
export async function readRecipe(file: string): Promise<Recipe> {
  const { parseYamlRecipe } = await import('@lowbit/pipeline')
  return parseYamlRecipe(await readText(file, 'recipe'), file)
}
