# %% [markdown]
# # Crystals with given elements, sizes and symmetry
# Small numbers, so that it runs in seconds. Run it as a script, or cell by cell in an editor that knows `# %%`.

# %%
import dpcdvae

model = dpcdvae.load_model("perov-5-compact")

# %% Only these elements. The condition acts in decoding, so no crystal is lost.
oxides = dpcdvae.generate(model, 4, elements="Sr,Ba,Ti,O", steps=5)
print(oxides.to_pandas())
assert all({site.symbol for site in atoms} <= {"Sr", "Ba", "Ti", "O"} for atoms in oxides.to_ase())

# %% One formula, or several in turn.
titanates = dpcdvae.generate(model, 4, formula=["SrTiO3", "BaTiO3"], steps=5)
assert [crystal.formula for crystal in titanates] == ["SrTiO3", "BaTiO3"] * 2

# %% Each structure once. Crystals are made until there are enough; the yield is in the result.
unique = dpcdvae.generate(model, 3, unique=True, neutral=True, steps=5)
print(unique.words())

# %% Crystals like one that you have: its latent plus noise. A small spread gives small changes.
like = dpcdvae.generate(model, 3, like=titanates[0], spread=0.5, steps=5)
print(like)

# %% What the model never saw is refused, unless you ask for it.
try:
    dpcdvae.generate(model, 1, elements="Xe,F", steps=5)
except dpcdvae.InputError as error:
    print(error)

# %% How one crystal came about, as frames. `dpcdvae.view(frames, "film.html")` plays them.
frames = dpcdvae.film(model, 0, formula="SrTiO3", steps=5)
assert len(frames) == 6
