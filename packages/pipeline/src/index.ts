export { type ConvertJob, convertModel } from './job/convert-model.ts'
export type { QuantizeJob } from './job/job.ts'
export { quantizeModel } from './job/quantize-model.ts'
export {
  type ModuleReport,
  type QuantizeEvent,
  type QuantizeReport,
  RUINED,
  ruinedModules,
} from './job/report.ts'
export {
  measureSensitivity,
  type SensitivityJob,
} from './job/sensitivity.ts'
export {
  type Allocation,
  allocateBits,
  allocationRange,
  type Choice,
  type Sensitivity,
} from './recipe/allocate.ts'
export {
  parseRecipe,
  parseYamlRecipe,
  type Recipe,
  type RecipeInput,
  recipeSchema,
} from './recipe/recipe.ts'
export { quantizeSample, refuseFormat } from './recipe/refuse-format.ts'
export { asksForText, assignQuantizers, makeCache, makeQuantizer } from './recipe/resolve.ts'
export { endToEnd, type ModelTuner, type ModelTunerPlugin } from './tune/end-to-end.ts'
export type { Tuned, TuneModel } from './tune/tune-model.ts'
